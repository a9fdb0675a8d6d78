/**
 * Which bits of configuration space vfio-pci keeps to itself, and which user space may write (the tables of
 * drivers/vfio/pci/vfio_pci_config.c). Capabilities it does not know are taken out of the lists.
 */
import type { ConfigSpace } from '../../devices/config-space';
import * as registers from '../../devices/pci-registers';

const BUILT_IN_SELF_TEST = 0x0f;
export const EXPANSION_ROM = 0x30;
const CAPABILITY_VENDOR = 0x09;
const CONTROL_PME = 0x8100;
const CAPABILITY_PME = 0xf800;
/** Device Control: phantom functions, and payload size, which the whole hierarchy must agree on. */
const DEVCTL_PHANTOM = 1 << 9;
const DEVCTL_PAYLOAD = 0xe0;
const DEVCTL_READ_REQUEST = 0x7000;
const DEVICE_CONTROL_2 = 0x28;
const DEVCTL2_ARI = 1 << 5;
/** Bytes of the PCI Express capability that user space sees: of a root complex endpoint all but the link's. */
const EXPRESS_LENGTH = 0x3c;
const EXPRESS_LENGTH_INTEGRATED = 0x2c;
const FIRST_EXTENDED = registers.EXTENDED_CAPABILITIES;

/** Bytes of the extended capabilities that are shown; PASID is not among them, as in Linux 7.3. */
const EXTENDED_LENGTH: Readonly<Record<number, number>> = {
  [registers.EXTENDED_CAPABILITY_ACS]: 8,
  [registers.EXTENDED_CAPABILITY_ATS]: 8,
  [registers.EXTENDED_CAPABILITY_PRI]: 16,
};

export class ConfigPermissions {
  /** Bits whose value is the kernel's, not the device's. */
  readonly virtual: Uint8Array;
  readonly writable: Uint8Array;
  /** For each byte, where its capability begins: 0 in the header, and -1 between capabilities. */
  readonly start: Int16Array;

  /** `values` are the virtual values, a copy of the device's: links in it are made to skip what is hidden. */
  constructor(
    readonly config: ConfigSpace,
    values: Uint8Array,
  ) {
    this.virtual = new Uint8Array(config.size);
    // What belongs to no capability is read and written in the device.
    this.writable = new Uint8Array(config.size).fill(0xff);
    this.start = new Int16Array(config.size).fill(-1);
    this.#header();
    this.#capabilities(values);
    if (config.size > FIRST_EXTENDED) this.#extendedCapabilities(values);
  }

  /** Bytes from `offset` on, up to the next multiple of four, that belong to the same capability. */
  remaining(offset: number): number {
    let length = 1;
    while ((offset + length) % 4 && this.start[offset + length] === this.start[offset]) length++;
    return length;
  }

  /** A register of `width` bytes: its virtual bits, and those that may be written. */
  #set(offset: number, width: number, virtual: number, writable: number): void {
    for (let i = 0; i < width; i++) {
      this.virtual[offset + i] = virtual >>> (8 * i);
      this.writable[offset + i] = writable >>> (8 * i);
    }
  }

  #claim(offset: number, length: number): void {
    this.start.fill(offset, offset, offset + length);
    this.writable.fill(0, offset, offset + length);
  }

  #header(): void {
    this.#claim(0, registers.HEADER_SIZE);
    this.#set(registers.VENDOR_ID, 4, -1, 0);
    this.#set(registers.COMMAND, 2, registers.COMMAND_INTERRUPT_DISABLE, -1);
    this.#set(registers.STATUS, 2, registers.STATUS_CAPABILITIES_LIST, 0);
    this.#set(registers.CACHE_LINE_SIZE, 2, 0, -1);
    this.#set(BUILT_IN_SELF_TEST, 1, 0, -1);
    for (let bar = 0; bar < registers.BAR_COUNT; bar++)
      this.#set(registers.BASE_ADDRESS_REGISTERS + 4 * bar, 4, -1, -1);
    this.#set(EXPANSION_ROM, 4, -1, -1);
    this.#set(registers.CAPABILITIES_POINTER, 1, -1, 0);
    this.#set(registers.INTERRUPT_LINE, 1, -1, -1);
    this.#set(registers.INTERRUPT_PIN, 1, -1, 0);
  }

  #capabilities(values: Uint8Array): void {
    let link = registers.CAPABILITIES_POINTER;
    let shown = 0;
    for (let at = this.config.read(link, 1); at; at = this.config.read(at + 1, 1)) {
      const length = this.#capabilityLength(at);
      if (!length) {
        values[link] = this.config.read(at + 1, 1);
        continue;
      }
      this.#claim(at, length);
      this.#capability(at, values);
      // The link is virtual, so that it can skip what follows.
      this.#set(at + 1, 1, -1, 0);
      link = at + 1;
      shown++;
    }
    if (!shown) values[registers.STATUS] &= ~registers.STATUS_CAPABILITIES_LIST;
  }

  /** Bytes of the capability, or 0 to hide it. */
  #capabilityLength(at: number): number {
    const { config } = this;
    switch (config.read(at, 1)) {
      case registers.CAPABILITY_POWER_MANAGEMENT:
        return 8;
      case registers.CAPABILITY_MSI: {
        const control = config.read(at + registers.MSI_CONTROL, 2);
        const wide = control & registers.MSI_CONTROL_64BIT ? 4 : 0;
        return 10 + wide + (control & registers.MSI_CONTROL_PER_VECTOR_MASKING ? 10 : 0);
      }
      case CAPABILITY_VENDOR:
        return config.read(at + 2, 1);
      case registers.CAPABILITY_EXPRESS: {
        const type = (config.read(at + registers.EXPRESS_CAPABILITIES, 2) >> 4) & 0xf;
        return type === registers.EXPRESS_TYPE_ROOT_COMPLEX_ENDPOINT
          ? EXPRESS_LENGTH_INTEGRATED
          : EXPRESS_LENGTH;
      }
      case registers.CAPABILITY_MSIX:
        return 12;
      default:
        return 0;
    }
  }

  #capability(at: number, values: Uint8Array): void {
    switch (this.config.read(at, 1)) {
      case registers.CAPABILITY_POWER_MANAGEMENT:
        // Nobody in user space can act on power management events: the device seems to have none.
        this.#set(at + registers.PM_CAPABILITIES, 2, CAPABILITY_PME, 0);
        this.#set(
          at + registers.PM_CONTROL_STATUS,
          4,
          CONTROL_PME,
          ~(CONTROL_PME | registers.PM_POWER_STATE),
        );
        values[at + registers.PM_CAPABILITIES + 1] &= ~(CAPABILITY_PME >> 8);
        values[at + registers.PM_CONTROL_STATUS + 1] &= ~(CONTROL_PME >> 8);
        break;
      case registers.CAPABILITY_MSI:
        this.#msi(at);
        break;
      case CAPABILITY_VENDOR:
        this.writable.fill(0xff, at, at + this.#capabilityLength(at));
        break;
      case registers.CAPABILITY_EXPRESS: {
        const virtual = registers.EXPRESS_INITIATE_FLR | DEVCTL_PAYLOAD | DEVCTL_READ_REQUEST;
        this.#set(at + registers.EXPRESS_DEVICE_CONTROL, 2, virtual, ~DEVCTL_PHANTOM);
        this.#set(at + DEVICE_CONTROL_2, 2, 0, ~DEVCTL2_ARI);
        break;
      }
    }
  }

  /** Address and data are the kernel's: what user space writes there has no effect. */
  #msi(at: number): void {
    const control = this.config.read(at + registers.MSI_CONTROL, 2);
    this.#set(at + registers.MSI_CONTROL, 1, -1, -1);
    this.#set(at + registers.MSI_ADDRESS, 4, -1, -1);
    let data = at + registers.MSI_UPPER_ADDRESS;
    if (control & registers.MSI_CONTROL_64BIT) {
      this.#set(data, 4, -1, -1);
      data += 4;
    }
    this.#set(data, 2, -1, -1);
    if (!(control & registers.MSI_CONTROL_PER_VECTOR_MASKING)) return;
    const mask = data + 4;
    this.#set(mask, 4, 0, -1);
    this.#set(mask + 4, 4, 0, -1);
  }

  #extendedCapabilities(values: Uint8Array): void {
    const view = new DataView(values.buffer, values.byteOffset);
    if (this.config.read(FIRST_EXTENDED, 4) === 0) return;
    let last = 0;
    let shown = 0;
    for (let at = FIRST_EXTENDED; at >= FIRST_EXTENDED;) {
      const header = this.config.read(at, 4);
      const next = header >>> 20;
      const length = EXTENDED_LENGTH[header & 0xffff] ?? 0;
      if (!length && last) {
        view.setUint32(last, (view.getUint32(last, true) & 0xfffff) | (next << 20), true);
      } else {
        this.#claim(at, length || 4);
        this.#set(at, 4, -1, 0);
        // The first one anchors the list: hidden, it becomes an empty capability.
        if (!length) view.setUint32(at, header & 0xffc00000, true);
        else shown++;
        last = at;
      }
      at = next;
    }
    if (!shown) view.setUint32(FIRST_EXTENDED, 0, true);
  }
}
