/** A sequence that is written out, and what most of them start with. */
import * as uapi from '../../../lib/uapi';
import { Builder } from '../generate/builder';
import { SELFTEST } from '../generate/hwpt';
import { VFIO_PATH } from '../generate/vfio';
import {
  nameOf,
  type FdRef,
  type Fields,
  type IoctlCall,
  type Sequence,
  type Value,
  type Words,
} from '../program';
import { Random } from '../random';

/** Where the mock IOMMU's aperture starts. */
export const MOCK_IOVA = uapi.MOCK_APERTURE_START;
export const PAGE = 4096;
/** FIXED_IOVA, WRITEABLE, READABLE. */
export const FIXED_RW = 7;
export const RW = 6;

/** Adds calls one after another. What a call gave is referred to through what adding it returns. */
export class Script {
  readonly builder = new Builder(new Random(0), new Set());
  /** The iommufd; the sequence starts by opening it. */
  readonly iommufd: FdRef = this.builder.add({ op: 'open', path: '/dev/iommu' });
  device: FdRef = 'none';

  call(request: string, fields: Fields, more: Partial<IoctlCall> = {}): number {
    // Those of containers go to the iommufd.
    const fd = request.startsWith('VFIO_DEVICE_') ? this.device : this.iommufd;
    return this.builder.add({ op: 'ioctl', fd, request, fields, ...more });
  }

  ioas(): Value {
    return { of: this.call('IOMMU_IOAS_ALLOC', {}), field: 'out_ioas_id' };
  }

  map(ioas_id: Value, iova: Value, length: Value, more: Fields = {}): number {
    const fields = { flags: FIXED_RW, ioas_id, iova, length, user_va: data(0), ...more };
    return this.call('IOMMU_IOAS_MAP', fields);
  }

  unmap(ioas_id: Value, iova: Value, length: Value): number {
    return this.call('IOMMU_IOAS_UNMAP', { ioas_id, iova, length });
  }

  destroy(id: Value): number {
    return this.call('IOMMU_DESTROY', { id });
  }

  /** Opens vfio0, or another device, and binds it: the device's id. */
  bind(path = VFIO_PATH): Value {
    this.device = this.builder.add({ op: 'open', path });
    const label = this.call('VFIO_DEVICE_BIND_IOMMUFD', { iommufd: { fd: this.iommufd } });
    return { of: label, field: 'out_devid' };
  }

  attach(pt_id: Value): number {
    return this.call('VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id });
  }

  test(op: number, id: Value, fields: Fields = {}, more: Partial<IoctlCall> = {}): number {
    return this.call('IOMMU_TEST_CMD', { op, id, ...fields }, more);
  }

  /** A mock device on `ioas`. `flags`: MOCK_FLAGS_DEVICE_*. */
  mock(ioas: Value, flags = 0) {
    const of = this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, ioas, {
      'mock_domain_flags.dev_flags': flags,
    });
    return {
      stdev: { of, field: 'mock_domain_flags.out_stdev_id' },
      device: { of, field: 'mock_domain_flags.out_idev_id' },
      hwpt: { of, field: 'mock_domain_flags.out_hwpt_id' },
    };
  }

  hwpt(dev_id: Value, pt_id: Value, flags = 0, more: Fields = {}): Value {
    const of = this.call('IOMMU_HWPT_ALLOC', { flags, dev_id, pt_id, ...more });
    return { of, field: 'out_hwpt_id' };
  }

  /** A nested table of the mock IOMMU. */
  nested(dev_id: Value, pt_id: Value, flags = 0, more: Fields = {}): Value {
    const fields = {
      flags,
      dev_id,
      pt_id,
      data_type: SELFTEST.hwptData,
      data_len: 8,
      data_uptr: scratch(0),
      ...more,
    };
    const of = this.call('IOMMU_HWPT_ALLOC', fields, { scratch: [u32(0, [7, 0])] });
    return { of, field: 'out_hwpt_id' };
  }

  /** A virtual IOMMU of the mock's. */
  viommu(dev_id: Value, hwpt_id: Value, more: Fields = {}): Value {
    const fields = { type: SELFTEST.viommu, dev_id, hwpt_id, ...more };
    const of = this.call('IOMMU_VIOMMU_ALLOC', fields, { scratch: [u32(0, [0x1234_5678])] });
    return { of, field: 'out_viommu_id' };
  }

  vdevice(viommu_id: Value, dev_id: Value, virt_id: Value): Value {
    const of = this.call('IOMMU_VDEVICE_ALLOC', { viommu_id, dev_id, virt_id });
    return { of, field: 'out_vdevice_id' };
  }

  /** Moves a mock device. */
  replace(stdev: Value, pt_id: Value): number {
    return this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, { 'mock_domain_replace.pt_id': pt_id });
  }

  /** A fault queue: its descriptor is the call itself. */
  faultQueue(): { fd: number; id: Value } {
    const fd = this.call('IOMMU_FAULT_QUEUE_ALLOC', {});
    return { fd, id: { of: fd, field: 'out_fault_id' } };
  }

  read(fd: FdRef, ...lengths: number[]): void {
    for (const length of lengths) this.builder.add({ op: 'read', fd, length });
  }

  write(fd: FdRef, length: number, ...values: Value[]): void {
    this.builder.add({ op: 'write', fd, length, bytes: u32(0, values) });
  }

  poll(fd: FdRef): void {
    this.builder.add({ op: 'poll', fd, events: 0x7fff });
  }

  close(fd: FdRef): void {
    this.builder.add({ op: 'close', fd });
  }

  /** Maps memory of the iommufd until `munmap`. */
  mmap(offset: number, length: number): number {
    return this.builder.add({ op: 'mmap', fd: this.iommufd, offset, length, keep: true });
  }

  munmap(mapping: number): void {
    this.builder.add({ op: 'munmap', mapping });
  }

  sequence(name: string): Sequence {
    return { name, calls: this.builder.calls };
  }
}

export function data(offset: number): Value {
  return { at: 'data', offset };
}

export function scratch(offset: number): Value {
  return { at: 'scratch', offset };
}

export function u32(offset: number, values: readonly Value[]): Words {
  return { offset, width: 4, values };
}

export function u64(offset: number, values: readonly Value[]): Words {
  return { offset, width: 8, values };
}

/** A named sequence. */
export function script(name: string, write: (script: Script) => void): Sequence {
  const made = new Script();
  write(made);
  return made.sequence(name);
}

/** Whether a sequence makes only calls that every kernel has. */
export function possible({ calls }: Sequence, excluded: readonly string[]): boolean {
  return !calls.some((call) => excluded.includes(nameOf(call)));
}
