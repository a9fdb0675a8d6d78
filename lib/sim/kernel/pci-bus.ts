/**
 * A PCI bus as the kernel's PCI core knows it: who sits on it, and what can be reset together. Bus 0 is the root
 * complex's own; every other bus hangs from a bridge, or from a root port that nobody sees. Either can reset it (a "hot
 * reset", PCIe 6.0, 6.6.1).
 */
import type { PciDevice } from './pci';

export class PciBus {
  /** The bridge that it is behind; undefined for the root bus, and behind a port that nobody sees. */
  self: PciDevice | undefined;
  readonly #devices: PciDevice[] = [];

  constructor(readonly number: number) {}

  /** In the order of their addresses. */
  get devices(): readonly PciDevice[] {
    return this.#devices;
  }

  /** Those behind bridges on it too: each after its bridge. */
  get all(): readonly PciDevice[] {
    return this.#devices.flatMap((device) => [device, ...(device.subordinate?.all ?? [])]);
  }

  /** There is a bridge that can reset it. */
  get resettable(): boolean {
    return this.number !== 0;
  }

  add(device: PciDevice): void {
    this.#devices.push(device);
    this.#devices.sort((a, b) => a.rid - b.rid);
  }

  remove(device: PciDevice): void {
    this.#devices.splice(this.#devices.indexOf(device), 1);
  }

  /** Whether vfio-pci, and no other driver, has all that a reset would meet. */
  get isVfios(): boolean {
    return this.all.every(({ vfioIndex }) => vfioIndex >= 0);
  }

  /** Secondary bus reset: every device starts afresh, with the kernel's state put back. */
  reset(): void {
    for (const device of this.all) device.resetByBus();
  }

  /** A device was closed: what could not be reset then is reset with the whole bus, once nobody has any of it open. */
  resetIfIdle(): void {
    const devices = this.all.filter(({ vfioIndex }) => vfioIndex >= 0);
    if (devices.some(({ opened }) => opened) || !devices.some(({ needsReset }) => needsReset)) return;
    if (!this.resettable || !this.isVfios) return;
    this.reset();
    for (const device of devices) device.needsReset = false;
  }
}
