/**
 * Interrupts of a VFIO PCI device: eventfds behind INTx, MSI and MSI-X, and the error and request notifiers
 * (drivers/vfio/pci/vfio_pci_intrs.c's role).
 */
import type { PciFunction } from '../../devices/pci-function';
import * as registers from '../../devices/pci-registers';
import { errno } from '../../../uapi/errno';
import {
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
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
import type { MessageSource } from '../interrupts';
import type { SimulatedProcess } from '../process';
import { Intx } from './intx';
import { MessageInterrupts } from './msi';

/** Offset of `data` in struct vfio_irq_set. */
const DATA = vfio_irq_set.offsets.data;

/** A VFIO_DEVICE_SET_IRQS that has passed the general checks. */
interface Request {
  readonly process: SimulatedProcess;
  /** One VFIO_IRQ_SET_DATA_*. */
  readonly type: number;
  readonly start: number;
  readonly count: number;
  /** `count` elements. */
  readonly data: Uint8Array;
}

export class VfioInterrupts {
  readonly #intx: Intx;
  readonly #messages: MessageInterrupts;
  /** Error and request notifiers, by index. */
  readonly #notifiers = new Map<number, EventFile>();
  #maskedAsleep = false;

  constructor(
    readonly pci: PciFunction,
    messages: MessageSource,
  ) {
    this.#intx = new Intx(pci);
    this.#messages = new MessageInterrupts(pci, messages);
  }

  /** How many interrupts an index has. */
  count(index: number): number {
    const { config } = this.pci;
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return config.read(registers.INTERRUPT_PIN, 1) ? 1 : 0;
      case VFIO_PCI_MSI_IRQ_INDEX: {
        const msi = config.capability(registers.CAPABILITY_MSI);
        return msi ? 1 << ((config.read(msi + registers.MSI_CONTROL, 2) >> 1) & 7) : 0;
      }
      case VFIO_PCI_MSIX_IRQ_INDEX: {
        const msix = config.capability(registers.CAPABILITY_MSIX);
        return msix ? (config.read(msix + registers.MSIX_CONTROL, 2) & 0x7ff) + 1 : 0;
      }
      default:
        return index === VFIO_PCI_ERR_IRQ_INDEX || index === VFIO_PCI_REQ_IRQ_INDEX ? 1 : 0;
    }
  }

  /** VFIO_IRQ_INFO_*. */
  flags(index: number): number {
    if (index === VFIO_PCI_INTX_IRQ_INDEX)
      return VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    // Vectors of MSI-X can be added one by one.
    const resizable = index === VFIO_PCI_MSIX_IRQ_INDEX && this.count(index) > 0;
    return VFIO_IRQ_INFO_EVENTFD | (resizable ? 0 : VFIO_IRQ_INFO_NORESIZE);
  }

  /** MSI, for the virtual configuration space. */
  get msi(): { enabled: boolean; log2Vectors: number } {
    const { kind, log2Vectors } = this.#messages;
    return { enabled: kind === registers.CAPABILITY_MSI, log2Vectors };
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
    return this.#act(index, flags & VFIO_IRQ_SET_ACTION_TYPE_MASK, { process, type, start, count, data });
  }

  /** What user space may do through Interrupt Disable of the command register. */
  disableIntx(disabled: boolean): void {
    this.#intx.disable(disabled);
  }

  /** The device was reset: it needs its messages again. */
  restore(): void {
    this.#messages.program();
  }

  /** The device goes to sleep; what it asks for meanwhile is heard when it is awake again. */
  suspend(): void {
    this.#maskedAsleep = this.#intx.mask();
  }

  resume(): void {
    if (this.#maskedAsleep) this.#intx.unmask();
    this.#maskedAsleep = false;
  }

  close(): void {
    this.#intx.close();
    this.#messages.disable();
    for (const eventfd of this.#notifiers.values()) eventfd.put();
    this.#notifiers.clear();
  }

  /** Tells the user, if it asked to be told, that the device is wanted back. */
  requestDevice(): void {
    this.#notifiers.get(VFIO_PCI_REQ_IRQ_INDEX)?.signal();
  }

  #act(index: number, action: number, request: Request): number {
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      if (action === VFIO_IRQ_SET_ACTION_MASK) return this.#maskIntx(request);
      if (action === VFIO_IRQ_SET_ACTION_UNMASK) return this.#unmaskIntx(request);
    }
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -errno.ENOTTY;
    if (index === VFIO_PCI_INTX_IRQ_INDEX) return this.#setIntx(request);
    if (index === VFIO_PCI_ERR_IRQ_INDEX || index === VFIO_PCI_REQ_IRQ_INDEX)
      return this.#setNotifier(index, request);
    return this.#setMessages(index, request);
  }

  #maskIntx({ type, start, count, data }: Request): number {
    if (!this.#intx.on || start !== 0 || count !== 1) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) return -errno.ENOTTY;
    if (type === VFIO_IRQ_SET_DATA_NONE || data[0]) this.#intx.mask();
    return 0;
  }

  #unmaskIntx({ process, type, start, count, data }: Request): number {
    if (!this.#intx.on || start !== 0 || count !== 1) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) {
      const eventfd = eventfdOf(process, data, 0);
      return typeof eventfd === 'number' ? eventfd : this.#intx.unmaskBy(eventfd);
    }
    if (type === VFIO_IRQ_SET_DATA_NONE || data[0]) this.#intx.unmask();
    return 0;
  }

  #setIntx({ process, type, start, count, data }: Request): number {
    const { on } = this.#intx;
    if (on && count === 0 && type === VFIO_IRQ_SET_DATA_NONE) {
      this.#intx.turnOff();
      return 0;
    }
    if (this.#messages.kind || start !== 0 || count !== 1) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) {
      const eventfd = eventfdOf(process, data, 0);
      if (typeof eventfd === 'number') return eventfd;
      this.#intx.enable(eventfd);
      return 0;
    }
    if (!on) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_NONE || data[0]) this.#intx.signal();
    return 0;
  }

  #setMessages(index: number, { process, type, start, count, data }: Request): number {
    const messages = this.#messages;
    const kind = index === VFIO_PCI_MSI_IRQ_INDEX ? registers.CAPABILITY_MSI : registers.CAPABILITY_MSIX;
    const on = messages.kind === kind;
    if (on && count === 0 && type === VFIO_IRQ_SET_DATA_NONE) {
      messages.disable();
      return 0;
    }
    if (!on && (messages.kind || this.#intx.on)) return -errno.EINVAL;
    if (type === VFIO_IRQ_SET_DATA_EVENTFD) {
      const enabled = on ? 0 : messages.enable(kind, start + count);
      if (enabled) return enabled;
      const triggers = Array.from({ length: count }, (_, i) => () => eventfdOf(process, data, i));
      const result = messages.setTriggers(start, triggers);
      if (result && !on) messages.disable();
      return result;
    }
    if (!on) return -errno.EINVAL;
    for (let i = 0; i < count; i++)
      if (type === VFIO_IRQ_SET_DATA_NONE || data[i]) messages.signal(start + i);
    return 0;
  }

  #setNotifier(index: number, { process, type, count, data }: Request): number {
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
    // Here, and only here, of the negative descriptors −1 alone says "none".
    if (descriptor(data, 0) < -1) return -errno.EINVAL;
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

function descriptor(data: Uint8Array, i: number): number {
  return new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(4 * i, true);
}

/** The i-th eventfd of the data: undefined for a negative descriptor, -errno where it is not an eventfd. */
function eventfdOf(process: SimulatedProcess, data: Uint8Array, i: number): EventFile | undefined | number {
  const fd = descriptor(data, i);
  if (fd < 0) return undefined;
  const file = process.file(fd);
  if (!file) return -errno.EBADF;
  return file instanceof EventFile ? file : -errno.EINVAL;
}
