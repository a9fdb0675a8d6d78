/**
 * A virtual machine's file, as far as its devices and their PASIDs go: what the RFC asks of KVM. A vPASID has one pPASID
 * in the whole machine, because the processor's translation does not know which device a command is for.
 */
import { errno } from '../../uapi/errno';
import type { Input, Ioctl, Struct, Values } from '../../uapi/layout';
import * as kvm from '../../uapi/proposal/kvm';
import { PASID_BITS, PasidTables } from '../cpu/pasid-translation';
import { OpenFile } from './file';
import { copyStruct } from './iommufd/command';
import { IommufdFile } from './iommufd/file';
import type { PasidSource } from './mdev/device';
import { IsolatedBinding } from './mdev/binding';
import { MdevFile } from './mdev/file';
import type { PasidAllocator } from './pasids';
import type { SimulatedProcess } from './process';
import type { System } from './system';
import { VfioFile } from './vfio/cdev';
import type { DeviceVm } from './vm-device';

/** A vPASID of the machine. */
interface VmPasid {
  readonly pasid: number;
  /** Devices that have it attached, and one more while the processor translates it. */
  users: number;
}

/** The machine's pPASIDs, from the global space: shared by all its devices whose commands come by ENQCMD. */
class VmPasids implements PasidSource {
  readonly #pasids = new Map<number, VmPasid>();

  constructor(readonly allocator: PasidAllocator) {}

  acquire(vpasid: number): number {
    const known = this.#pasids.get(vpasid);
    if (known) known.users++;
    const pasid = known?.pasid ?? this.allocator.allocate();
    if (!known && pasid >= 0) this.#pasids.set(vpasid, { pasid, users: 1 });
    return pasid;
  }

  peek(vpasid: number): number | undefined {
    return this.#pasids.get(vpasid)?.pasid;
  }

  release(vpasid: number): void {
    const known = this.#pasids.get(vpasid);
    if (!known || --known.users > 0) return;
    this.#pasids.delete(vpasid);
    this.allocator.free(known.pasid);
  }
}

type FieldsOf<S> = S extends Struct<infer F> ? F : never;
type Fields<S extends Struct> = Values<FieldsOf<S>> & Input<FieldsOf<S>>;

export class VmFile extends OpenFile implements DeviceVm {
  readonly devices = new Set<VfioFile | MdevFile>();
  /** vPASIDs that the processors translate. */
  readonly #mapped = new Set<number>();
  readonly #pasids: VmPasids;
  #tables: PasidTables | undefined;

  constructor(readonly system: System) {
    super();
    this.#pasids = new VmPasids(system.pasids.global);
  }

  /** The processors' structures, while the translation is on. */
  get tables(): PasidTables | undefined {
    return this.#tables;
  }

  get translatesPasids(): boolean {
    return this.#tables !== undefined;
  }

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    const run = <S extends Struct>(row: Ioctl<S>, handler: (values: Fields<S>) => number): number => {
      const values = read(process, row, argument);
      return typeof values === 'number' ? values : handler(values);
    };
    switch (request) {
      case kvm.KVM_DEV_VFIO_FILE_ADD.request:
        return run(kvm.KVM_DEV_VFIO_FILE_ADD, ({ fd }) => this.#add(process.file(fd)));
      case kvm.KVM_DEV_VFIO_FILE_DEL.request:
        return run(kvm.KVM_DEV_VFIO_FILE_DEL, ({ fd }) => this.#del(process.file(fd)));
      case kvm.KVM_CHECK_EXTENSION.request:
        return run(kvm.KVM_CHECK_EXTENSION, ({ cap }) => Number(cap === kvm.KVM_CAP_PASID_TRANSLATION));
      case kvm.KVM_ENABLE_CAP.request:
        return run(kvm.KVM_ENABLE_CAP, ({ cap }) => this.#enable(cap));
      case kvm.KVM_MAP_PASID.request:
        return run(kvm.KVM_MAP_PASID, (values) => this.#map(process, values));
      case kvm.KVM_UNMAP_PASID.request:
        return run(kvm.KVM_UNMAP_PASID, ({ flags, user_pasid }) =>
          flags ? -errno.EINVAL : this.#unmap(user_pasid),
        );
      default:
        return -errno.ENOTTY;
    }
  }

  /** A device leaves. What it has attached keeps its pPASIDs until it is detached. */
  remove(file: VfioFile | MdevFile): void {
    this.devices.delete(file);
    file.vm = undefined;
    if (!(file instanceof MdevFile)) return;
    for (const vpasid of this.#mapped) this.#abort(file, vpasid);
    file.mdev.source = file.mdev.own;
  }

  protected override release(): void {
    for (const vpasid of [...this.#mapped]) this.#unmap(vpasid);
    for (const file of [...this.devices]) this.remove(file);
    this.#tables?.free();
    this.#tables = undefined;
  }

  #abort(file: VfioFile | MdevFile, vpasid: number): void {
    const pasid = this.#pasids.peek(vpasid);
    if (file instanceof MdevFile && file.mdev.type.enqcmd && pasid !== undefined) file.mdev.abort(pasid);
  }

  #add(file: OpenFile | undefined): number {
    if (!file) return -errno.EBADF;
    if (!(file instanceof VfioFile) && !(file instanceof MdevFile)) return -errno.EINVAL;
    if (this.devices.has(file)) return -errno.EEXIST;
    if (file.vm) return -errno.EBUSY;
    if (file instanceof MdevFile) {
      // Its vPASIDs have pPASIDs already, and those may not be the machine's.
      if (file.mdev.pasidsInUse > 0) return -errno.EBUSY;
      if (file.mdev.type.enqcmd) file.mdev.source = this.#pasids;
    }
    file.vm = this;
    this.devices.add(file);
    return 0;
  }

  #del(file: OpenFile | undefined): number {
    if (!file) return -errno.EBADF;
    if (!(file instanceof VfioFile || file instanceof MdevFile) || !this.devices.has(file))
      return -errno.ENOENT;
    if (file instanceof MdevFile && file.mdev.pasidsInUse > 0) return -errno.EBUSY;
    this.remove(file);
    return 0;
  }

  #enable(cap: number): number {
    if (cap !== kvm.KVM_CAP_PASID_TRANSLATION) return -errno.EINVAL;
    if (this.#tables) return 0;
    const tables = PasidTables.create(this.system.memory);
    if (typeof tables === 'number') return tables;
    this.#tables = tables;
    return 0;
  }

  #map(process: SimulatedProcess, values: Values<FieldsOf<typeof kvm.kvm_map_pasid>>): number {
    const { flags, user_pasid: vpasid, iommu_fd, ioasid } = values;
    if (flags || vpasid > PASID_BITS || !this.#tables) return -errno.EINVAL;
    const iommufd = process.file(iommu_fd);
    if (!iommufd) return -errno.EBADF;
    if (!(iommufd instanceof IommufdFile)) return -errno.EBADFD;
    if (this.#mapped.has(vpasid)) return -errno.EEXIST;
    if (![...this.devices].some((file) => hasAttached(file, iommufd, vpasid, ioasid))) return -errno.ENOENT;
    const pasid = this.#pasids.acquire(vpasid);
    const result = pasid < 0 ? pasid : this.#tables.map(vpasid, pasid);
    if (result < 0) this.#pasids.release(vpasid);
    else this.#mapped.add(vpasid);
    return result;
  }

  #unmap(vpasid: number): number {
    if (!this.#mapped.delete(vpasid)) return -errno.ENOENT;
    this.#tables?.unmap(vpasid);
    // No command with the pPASID may be left when somebody else gets it.
    for (const file of this.devices) this.#abort(file, vpasid);
    this.#pasids.release(vpasid);
    return 0;
  }
}

/** The device takes ENQCMD, and has this vPASID attached to that page table. */
function hasAttached(
  file: VfioFile | MdevFile,
  iommufd: IommufdFile,
  vpasid: number,
  ioasid: number,
): boolean {
  if (!(file instanceof MdevFile) || !file.mdev.type.enqcmd) return false;
  const { binding } = file;
  if (!(binding instanceof IsolatedBinding) || binding.iommufd !== iommufd) return false;
  return binding.device.igroup.attachments.get(vpasid)?.hwpt.id === ioasid;
}

function read<S extends Struct>(
  process: SimulatedProcess,
  { struct, minimumSize }: Ioctl<S>,
  argument: Uint8Array | number,
): Fields<S> | number {
  const user = process.userBytes(argument);
  if (!user || user.length < 4) return -errno.EFAULT;
  const argsz = new DataView(user.buffer, user.byteOffset).getUint32(0, true);
  if (argsz < minimumSize) return -errno.EINVAL;
  const bytes = copyStruct(user, argsz, struct.size);
  return typeof bytes === 'number' ? bytes : (struct.decode(bytes) as Fields<S>);
}
