/**
 * Interrupts of a VFIO PCI device: eventfds behind INTx, MSI and MSI-X (drivers/vfio/pci/vfio_pci_intrs.c's
 * role).
 */
import type { PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';
import { errno } from '../../../uapi/errno';
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_REQ_IRQ_INDEX,
  vfio_irq_set,
} from '../../../uapi/vfio';
import { EventFile } from '../eventfd';
import type { InterruptController, Vector } from '../interrupts';
import type { SimulatedProcess } from '../process';

/** Offset of `data` in struct vfio_irq_set. */
const DATA = vfio_irq_set.offsets.data;

interface Line {
  eventfd: EventFile;
  readonly vector: Vector | undefined;
}

export class VfioInterrupts {
  /** Index (INTx, MSI or MSI-X) that is enabled; -1 for none. A device has one kind at a time. */
  #enabled = -1;
  readonly #lines = new Map<number, Line>();
  #intxMasked = false;
  /** Error and request notifiers, by index. */
  readonly #notifiers = new Map<number, EventFile>();

  constructor(
    readonly pci: PciFunction,
    readonly controller: InterruptController,
  ) {
    pci.onIntx = (asserted) => {
      if (asserted) this.#intx();
    };
  }

  /** How many interrupts an index has. */
  count(index: number): number {
    const { config } = this.pci;
    if (index === VFIO_PCI_INTX_IRQ_INDEX) return config.read(registers.INTERRUPT_PIN, 1) ? 1 : 0;
    if (index === VFIO_PCI_MSI_IRQ_INDEX) {
      const msi = config.capability(registers.CAPABILITY_MSI);
      return msi ? 1 << ((config.read(msi + registers.MSI_CONTROL, 2) >> 1) & 7) : 0;
    }
    if (index === VFIO_PCI_MSIX_IRQ_INDEX) {
      const msix = config.capability(registers.CAPABILITY_MSIX);
      return msix ? (config.read(msix + registers.MSIX_CONTROL, 2) & 0x7ff) + 1 : 0;
    }
    if (index === VFIO_PCI_ERR_IRQ_INDEX) return config.capability(registers.CAPABILITY_EXPRESS) ? 1 : 0;
    return index === VFIO_PCI_REQ_IRQ_INDEX ? 1 : 0;
  }

  /** VFIO_DEVICE_SET_IRQS. `bytes` is the whole struct, data included. */
  set(process: SimulatedProcess, bytes: Uint8Array): number {
    if (bytes.length < DATA) return -errno.EFAULT;
    const { argsz, flags, index, start, count } = vfio_irq_set.decode(bytes);
    const known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
    if (argsz < DATA || index >= VFIO_PCI_NUM_IRQS || count >= 0xffffffff - start || flags & ~known)
      return -errno.EINVAL;
    const most = this.count(index);
    if (start >= most || start + count > most) return -errno.EINVAL;
    const type = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    const width = {
      [VFIO_IRQ_SET_DATA_NONE]: 0,
      [VFIO_IRQ_SET_DATA_BOOL]: 1,
      [VFIO_IRQ_SET_DATA_EVENTFD]: 4,
    }[type];
    if (width === undefined || argsz - DATA < count * width) return -errno.EINVAL;
    if (bytes.length < DATA + count * width) return -errno.EFAULT;
    const data = bytes.subarray(DATA, DATA + count * width);

    const action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    if (index === VFIO_PCI_INTX_IRQ_INDEX) return this.#setIntx(process, action, type, start, count, data);
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -errno.ENOTTY;
    if (index === VFIO_PCI_ERR_IRQ_INDEX || index === VFIO_PCI_REQ_IRQ_INDEX)
      return this.#setNotifier(process, index, type, count, data);
    return this.#setMsi(process, index, type, start, count, data);
  }

  /** Everything off, as on close. */
  disable(): void {
    for (const line of this.#lines.values()) this.#drop(line);
    this.#lines.clear();
    const capability =
      this.#enabled === VFIO_PCI_MSI_IRQ_INDEX ? registers.CAPABILITY_MSI : registers.CAPABILITY_MSIX;
    if (this.#enabled > VFIO_PCI_INTX_IRQ_INDEX) this.#enableCapability(capability, false, 0);
    this.#enabled = -1;
    this.#intxMasked = false;
  }

  close(): void {
    this.disable();
    for (const eventfd of this.#notifiers.values()) eventfd.put();
    this.#notifiers.clear();
  }

  /** Tells the user, if it asked to be told, that the device is wanted back. */
  requestDevice(): void {
    this.#notifiers.get(VFIO_PCI_REQ_IRQ_INDEX)?.signal();
  }

  #intx(): void {
    const line = this.#enabled === VFIO_PCI_INTX_IRQ_INDEX ? this.#lines.get(0) : undefined;
    if (!line || this.#intxMasked) return;
    // A level interrupt stays up until the driver has handled it: masked until the user unmasks.
    this.#intxMasked = true;
    line.eventfd.signal();
  }

  #setIntx(
    process: SimulatedProcess,
    action: number,
    type: number,
    start: number,
    count: number,
    data: Uint8Array,
  ): number {
    const on = this.#enabled === VFIO_PCI_INTX_IRQ_INDEX;
    if (action === VFIO_IRQ_SET_ACTION_MASK || action === VFIO_IRQ_SET_ACTION_UNMASK) {
      if (!on || start !== 0 || count !== 1) return -errno.EINVAL;
      // An eventfd to mask or unmask by belongs to KVM's irqfds; nothing here would signal it.
      if (type === VFIO_IRQ_SET_DATA_EVENTFD) return -errno.ENOTTY;
      if (type === VFIO_IRQ_SET_DATA_NONE || data[0]) this.#maskIntx(action === VFIO_IRQ_SET_ACTION_MASK);
      return 0;
    }
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -errno.ENOTTY;
    if (on && count === 0 && type === VFIO_IRQ_SET_DATA_NONE) {
      this.disable();
      return 0;
    }
    if ((!on && this.#enabled >= 0) || start !== 0 || count !== 1) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) {
      const eventfd = eventfdOf(process, data, 0);
      if (typeof eventfd === 'number') return eventfd;
      this.#enabled = VFIO_PCI_INTX_IRQ_INDEX;
      this.#assign(0, eventfd, undefined);
      if (this.pci.intxAsserted) this.#intx();
      return 0;
    }
    if (!on) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_NONE || data[0]) this.#lines.get(0)?.eventfd.signal();
    return 0;
  }

  #maskIntx(masked: boolean): void {
    this.#intxMasked = masked;
    if (!masked && this.pci.intxAsserted) this.#intx();
  }

  #setMsi(
    process: SimulatedProcess,
    index: number,
    type: number,
    start: number,
    count: number,
    data: Uint8Array,
  ): number {
    const on = this.#enabled === index;
    if (on && count === 0 && type === VFIO_IRQ_SET_DATA_NONE) {
      this.disable();
      return 0;
    }
    if (!on && this.#enabled >= 0) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) {
      const eventfds: (EventFile | undefined)[] = [];
      for (let i = 0; i < count; i++) {
        const eventfd = eventfdOf(process, data, i);
        if (typeof eventfd === 'number') return eventfd;
        eventfds.push(eventfd);
      }
      this.#enabled = index;
      const result = this.#assignVectors(index, start, eventfds);
      if (result && !on) this.disable();
      return result;
    }
    if (!on) return -errno.EINVAL;
    for (let i = 0; i < count; i++)
      if (type === VFIO_IRQ_SET_DATA_NONE || data[i]) this.#lines.get(start + i)?.eventfd.signal();
    return 0;
  }

  #assignVectors(index: number, start: number, eventfds: readonly (EventFile | undefined)[]): number {
    for (const [i, eventfd] of eventfds.entries()) {
      const number = start + i;
      const vector = eventfd && this.controller.allocate(() => this.#lines.get(number)?.eventfd.signal());
      if (eventfd && !vector) return -errno.ENOSPC;
      this.#assign(number, eventfd, vector);
      if (index === VFIO_PCI_MSIX_IRQ_INDEX) this.#programMsix(number, vector);
      else if (vector && number === 0) this.#programMsi(vector);
    }
    const capability =
      index === VFIO_PCI_MSI_IRQ_INDEX ? registers.CAPABILITY_MSI : registers.CAPABILITY_MSIX;
    this.#enableCapability(capability, true, Math.ceil(Math.log2(Math.max(start + eventfds.length, 1))));
    return 0;
  }

  #assign(number: number, eventfd: EventFile | undefined, vector: Vector | undefined): void {
    const old = this.#lines.get(number);
    if (old) this.#drop(old);
    if (eventfd) this.#lines.set(number, { eventfd: eventfd.get(), vector });
    else this.#lines.delete(number);
  }

  #drop(line: Line): void {
    line.vector?.free();
    line.eventfd.put();
  }

  #programMsi({ addressHigh, addressLow, data }: Vector): void {
    const { config } = this.pci;
    const msi = config.capability(registers.CAPABILITY_MSI);
    const wide = (config.read(msi + registers.MSI_CONTROL, 2) & registers.MSI_CONTROL_64BIT) !== 0;
    config.write(msi + registers.MSI_ADDRESS, 4, addressLow);
    if (wide) config.write(msi + registers.MSI_UPPER_ADDRESS, 4, addressHigh);
    config.write(msi + registers.MSI_UPPER_ADDRESS + (wide ? 4 : 0), 2, data);
  }

  /** Writes the table entry; a vector without an eventfd stays masked. */
  #programMsix(number: number, vector: Vector | undefined): void {
    const { config } = this.pci;
    const at = config.read(config.capability(registers.CAPABILITY_MSIX) + registers.MSIX_TABLE, 4);
    const bar = at & 7;
    const entry = (at & ~7) + number * registers.MSIX_ENTRY_SIZE;
    if (vector) {
      this.pci.writeBar(bar, entry, 4, vector.addressLow);
      this.pci.writeBar(bar, entry + 4, 4, vector.addressHigh);
      this.pci.writeBar(bar, entry + 8, 4, vector.data);
    }
    this.pci.writeBar(bar, entry + 12, 4, vector ? 0 : 1);
  }

  #enableCapability(id: number, on: boolean, log2: number): void {
    const { config } = this.pci;
    const at = config.capability(id) + registers.MSI_CONTROL;
    const bit =
      id === registers.CAPABILITY_MSI ? registers.MSI_CONTROL_ENABLE : registers.MSIX_CONTROL_ENABLE;
    const multiple = id === registers.CAPABILITY_MSI ? 7 << 4 : 0;
    const now = config.read(at, 2) & ~bit & ~multiple;
    config.write(at, 2, on ? now | bit | ((log2 << 4) & multiple) : now);
  }

  #setNotifier(
    process: SimulatedProcess,
    index: number,
    type: number,
    count: number,
    data: Uint8Array,
  ): number {
    const now = this.#notifiers.get(index);
    if (type === VFIO_IRQ_SET_DATA_NONE) {
      if (!now) return -errno.EINVAL;
      if (count) now.signal();
      else this.#replaceNotifier(index, undefined);
      return 0;
    }
    if (!count) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_BOOL) {
      if (data[0]) now?.signal();
      return 0;
    }
    const eventfd = eventfdOf(process, data, 0);
    if (typeof eventfd === 'number') return eventfd;
    this.#replaceNotifier(index, eventfd);
    return 0;
  }

  #replaceNotifier(index: number, eventfd: EventFile | undefined): void {
    this.#notifiers.get(index)?.put();
    if (eventfd) this.#notifiers.set(index, eventfd.get());
    else this.#notifiers.delete(index);
  }
}

/** The i-th eventfd of the data: undefined for −1, -errno where the descriptor is not an eventfd. */
function eventfdOf(process: SimulatedProcess, data: Uint8Array, i: number): EventFile | undefined | number {
  const fd = new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(4 * i, true);
  if (fd < 0) return fd === -1 ? undefined : -errno.EINVAL;
  const file = process.file(fd);
  if (!file) return -errno.EBADF;
  return file instanceof EventFile ? file : -errno.EINVAL;
}
