/** A virtual machine on a simulated machine: a file of its kernel, a processor, and the guest's physical address space. */
import { PROT_WRITE, type DeviceMapping } from '../kernel';
import { errno } from '../uapi/errno';
import { isEnqueueTarget, type EnqueueTarget } from './cpu/enqcmd';
import { Vcpu } from './cpu/vcpu';
import { VmFile } from './kernel/kvm';
import type { SimulatedProcess } from './kernel/process';
import { REGION_STRIDE } from './kernel/vfio/regions';

const PAGE = 4096;

/** Device memory in the guest's physical address space. */
interface Slot {
  readonly address: number;
  readonly mapping: DeviceMapping & EnqueueTarget;
}

export class SimulatedVm {
  /** The machine's file, a descriptor of the process: `iommu.openVm(vm.fd)` takes it. */
  readonly fd: number;
  readonly vcpu: Vcpu;
  readonly #file: VmFile;
  readonly #slots: Slot[] = [];
  #closed = false;

  /** @internal Use `machine.createVm()`. */
  constructor(readonly process: SimulatedProcess) {
    const { system } = process;
    const file = (this.#file = new VmFile(system));
    this.fd = process.install(file);
    if (this.fd < 0) throw new RangeError('the process has no descriptor left');
    this.vcpu = new Vcpu({
      memory: system.memory,
      get directories() {
        return file.tables;
      },
      deviceAt: (address) => this.#deviceAt(address),
    });
  }

  /**
   * Puts a region of a VFIO device that is open in the process, `length` bytes of it, at a guest-physical address, as a
   * VMM does with what mmap(2) gave it. 0, or mmap's -errno; -EACCES for the portal of a device of another virtual machine. RangeError for an address that is no page, or is taken.
   */
  mapRegion(address: number, deviceFd: number, region: number, length = PAGE): number {
    if (address % PAGE || this.#slots.some((slot) => overlaps(slot, address, length)))
      throw new RangeError(`nothing can be mapped at 0x${address.toString(16)}`);
    const mapping = this.process.mmap(deviceFd, region * REGION_STRIDE, length, PROT_WRITE);
    if (typeof mapping === 'number') return mapping;
    if (!isEnqueueTarget(mapping)) throw new RangeError('no device memory is there');
    if (mapping.belongsTo?.(this.#file) === false) return -errno.EACCES;
    this.#slots.push({ address, mapping });
    return 0;
  }

  /** The virtual machine ends: its devices leave it, and its translation is gone. */
  close(): void {
    // The descriptor may be another file's by now.
    if (this.#closed) return;
    this.#closed = true;
    for (const { mapping } of this.#slots.splice(0)) mapping.unmap();
    this.process.close(this.fd);
  }

  #deviceAt(address: number) {
    const slot = this.#slots.find((candidate) => overlaps(candidate, address, 1));
    if (slot?.mapping.belongsTo?.(this.#file) === false) return undefined;
    return slot && { target: slot.mapping, offset: address - slot.address };
  }
}

function overlaps({ address, mapping }: Slot, start: number, length: number): boolean {
  return start < address + mapping.length && address < start + length;
}
