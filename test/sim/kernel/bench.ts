/** One simulated process on a machine with probe functions, and the calls tests make through it. */
import { EFD_NONBLOCK, O_RDWR } from '../../../lib/kernel';
import { attempt } from '../../../lib/ioctl';
import type { Kernel } from '../../../lib/kernel';
import { Machine, type MachineOptions } from '../../../lib/sim/machine';
import * as uapi from '../../../lib/uapi';
import { ProbeFunction } from './probe-function';

export const PROBE_BDF = '0000:00:06.0';
export const PAGE = 4096;
/** Offset of configuration space in a VFIO file. */
export const CONFIG = 7 * 2 ** 40;
const U64_MAX = 2n ** 64n - 1n;

type Encoded<S extends uapi.Struct> = Parameters<S['encode']>[0];

/** 'EINVAL' for -22; anything from 0 on as it is. */
export function code(result: number): string | number {
  return result < 0 ? uapi.errnoName(result) : result;
}

export class Bench {
  readonly probe: ProbeFunction;
  readonly machine: Machine;
  readonly kernel: Kernel;
  fd: number;
  vfio = -1;
  device = -1;

  constructor(options: MachineOptions = {}, probe = new ProbeFunction()) {
    this.probe = probe;
    this.machine = new Machine({ manual: true, devices: { [PROBE_BDF]: probe }, ...options });
    this.kernel = this.machine.process();
    this.fd = this.open();
  }

  open(path = '/dev/iommu'): number {
    const fd = this.kernel.open(path, O_RDWR);
    if (fd < 0) throw new Error(`${path}: ${code(fd)}`);
    return fd;
  }

  /** Calls, and throws what is not 0. */
  call<S extends uapi.Struct>(row: uapi.Ioctl<S>, values: Encoded<S>, fd = this.fd): ReturnType<S['decode']> {
    const { result, out } = attempt(this.kernel, fd, row, values);
    if (result !== 0) throw new Error(`${row.name}: ${code(result)}`);
    return out;
  }

  result<S extends uapi.Struct>(row: uapi.Ioctl<S>, values: Encoded<S>, fd = this.fd): string | number {
    return code(attempt(this.kernel, fd, row, values).result);
  }

  /** Opens and binds, with bus master on. */
  bind(path = '/dev/vfio/devices/vfio0'): number {
    this.vfio = this.open(path);
    this.device = this.call(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: this.fd }, this.vfio).out_devid;
    this.kernel.pwrite(this.vfio, new Uint8Array([6, 0]), CONFIG + 4);
    return this.device;
  }

  ioas(): number {
    return this.call(uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
  }

  hwpt(pt_id: number, more: Encoded<typeof uapi.iommu_hwpt_alloc> = {}): number {
    return this.call(uapi.IOMMU_HWPT_ALLOC, { dev_id: this.device, pt_id, ...more }).out_hwpt_id;
  }

  attach(pt_id: number, pasid?: number): number {
    const flags = pasid === undefined ? 0 : uapi.VFIO_DEVICE_ATTACH_PASID;
    return this.call(uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id, flags, pasid: pasid ?? 0 }, this.vfio)
      .pt_id;
  }

  detach(pasid?: number): void {
    const flags = pasid === undefined ? 0 : uapi.VFIO_DEVICE_DETACH_PASID;
    this.call(uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, { flags, pasid: pasid ?? 0 }, this.vfio);
  }

  map(ioas_id: number, iova: number, user_va: bigint, length = PAGE, writable = true): void {
    const access = uapi.IOMMU_IOAS_MAP_READABLE | (writable ? uapi.IOMMU_IOAS_MAP_WRITEABLE : 0);
    this.call(uapi.IOMMU_IOAS_MAP, {
      ioas_id,
      iova,
      user_va,
      length,
      flags: access | uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
    });
  }

  unmap(ioas_id: number, iova: bigint | number = 0n, length: bigint | number = U64_MAX): bigint {
    return this.call(uapi.IOMMU_IOAS_UNMAP, { ioas_id, iova, length }).length;
  }

  memory(length = PAGE) {
    const memory = this.kernel.allocate(length);
    if (typeof memory === 'number') throw new Error('allocate');
    return memory;
  }

  /** SET_IRQS with descriptors, or, without any, a trigger of nothing: off. */
  interrupts(index: number, descriptors: readonly number[], start = 0): string | number {
    const bytes = new Uint8Array(20 + 4 * descriptors.length);
    const type = descriptors.length > 0 ? uapi.VFIO_IRQ_SET_DATA_EVENTFD : uapi.VFIO_IRQ_SET_DATA_NONE;
    const flags = type | uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
    bytes.set(
      uapi.vfio_irq_set.encode({ argsz: bytes.length, flags, index, start, count: descriptors.length }),
    );
    const view = new DataView(bytes.buffer);
    descriptors.forEach((fd, i) => view.setInt32(20 + 4 * i, fd, true));
    return code(this.kernel.ioctl(this.vfio, uapi.VFIO_DEVICE_SET_IRQS.request, bytes));
  }

  eventfd(): number {
    return this.kernel.eventfd(0, EFD_NONBLOCK);
  }

  /** Takes what an eventfd has counted. */
  count(fd: number): number {
    const bytes = new Uint8Array(8);
    return this.kernel.read(fd, bytes) < 0 ? 0 : Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }

  config(offset: number, ...write: number[]): number {
    const bytes = new Uint8Array(4);
    if (write.length > 0) this.kernel.pwrite(this.vfio, Uint8Array.from(write), CONFIG + offset);
    this.kernel.pread(this.vfio, bytes, CONFIG + (offset & ~3));
    return new DataView(bytes.buffer).getUint32(0, true);
  }
}
