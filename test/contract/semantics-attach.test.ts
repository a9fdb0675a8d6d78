/** Attach, replace, detach, HWPTs and their ids, with edu: a device without PASIDs or page requests. */
import * as uapi from '../../lib/uapi';
import { Calls, pages, READ, U64_MAX, UNMAPPED, WRITE } from './calls';
import { PAGE } from './support';

const calls = new Calls();
const { base } = calls;
const P = pages(1);
/** The interrupt window of x86, which no mapping may use while a device is attached. */
const INTERRUPTS = 0xfee0_0000n;
const PASID = uapi.IOMMU_HWPT_ALLOC_PASID;
const FAULT = uapi.IOMMU_HWPT_FAULT_ID_VALID;

let vfio: number;
let device: number;
let ioas: number;
let other: number;

beforeEach(() => {
  calls.open();
  vfio = calls.vfio();
  device = calls.bind(vfio);
  ioas = calls.ioas();
  other = calls.ioas();
});
afterEach(() => calls.close());
afterAll(() => calls.free());

/** First addresses of the usable ranges. */
function starts(id: number): bigint[] {
  return calls.ranges(id).found.map(([start]) => start);
}

describe('attach', () => {
  test('to what is not there, or is no page table', () => {
    expect(calls.attach(vfio, 99)).toBe('ENOENT');
    expect(calls.attach(vfio, 0)).toBe('ENOENT');
    expect(calls.attach(vfio, device)).toBe('EINVAL');
    expect(calls.detach(vfio)).toBe(0);
    expect(calls.destroy(device)).toBe('EBUSY');
  });

  test('to an IOAS: an automatic HWPT, which goes with its last user', () => {
    expect([device, ioas, other]).toEqual([1, 2, 3]);
    expect(calls.attach(vfio, ioas)).toBe(4);
    expect(calls.attach(vfio, ioas)).toBe(4);
    expect(calls.destroy(ioas)).toBe('EBUSY');
    expect(calls.destroy(4)).toBe('EBUSY');
    // The next one gets its id while the last one has its own.
    expect(calls.attach(vfio, other)).toBe(5);
    expect(calls.ioas()).toBe(4);
    expect(calls.destroy(ioas)).toBe(0);
    expect(calls.attach(vfio, 5)).toBe(5);
    expect(calls.detach(vfio)).toBe(0);
    expect(calls.destroy(5)).toBe('ENOENT');
  });

  test('reserves the interrupt window and what the table cannot reach, and gives both back', () => {
    expect(starts(ioas)).toEqual([0n]);
    calls.attach(vfio, ioas);
    const { found, alignment } = calls.ranges(ioas);
    expect(alignment).toBe(P);
    expect(found).toHaveLength(2);
    expect(found[0]).toEqual([0n, INTERRUPTS - 1n]);
    expect(found[1][0]).toBe(INTERRUPTS + 0x10_0000n);
    expect(found[1][1]).toBeLessThan(U64_MAX);
    calls.attach(vfio, other);
    expect(calls.ranges(ioas)).toMatchObject({ alignment: 1n, found: [[0n, U64_MAX]] });
    calls.detach(vfio);
    expect(starts(other)).toEqual([0n]);
  });

  test('a HWPT by itself reserves only what it cannot reach', () => {
    const hwpt = calls.hwpt(device, ioas) as number;
    expect(starts(ioas)).toEqual([0n]);
    expect(calls.ranges(ioas).found[0][1]).toBeLessThan(U64_MAX);
    expect(calls.map(ioas, INTERRUPTS, base, P)).toBe(0);
    expect(calls.attach(vfio, hwpt)).toBe('EADDRINUSE');
    expect(calls.unmap(ioas, INTERRUPTS, P)).toBe(P);
    expect(calls.attach(vfio, hwpt)).toBe(hwpt);
    expect(calls.map(ioas, INTERRUPTS, base, P)).toBe('EINVAL');
    expect(calls.map(ioas, INTERRUPTS - P, base, 2n * P)).toBe('EINVAL');
    expect(calls.map(ioas, INTERRUPTS - P, base, P)).toBe(0);
    expect(calls.destroy(hwpt)).toBe('EBUSY');
    expect(calls.destroy(ioas)).toBe('EBUSY');
    calls.detach(vfio);
    expect(calls.destroy(hwpt)).toBe(0);
    expect(calls.destroy(ioas)).toBe(0);
  });

  test('to a HWPT never becomes automatic', () => {
    const hwpt = calls.hwpt(device, ioas) as number;
    expect(calls.attach(vfio, hwpt)).toBe(hwpt);
    const automatic = calls.attach(vfio, ioas) as number;
    expect(automatic).not.toBe(hwpt);
    expect(calls.attach(vfio, hwpt)).toBe(hwpt);
    expect(calls.destroy(automatic)).toBe('ENOENT');
  });
});

describe('mappings that a device does not agree with', () => {
  test('memory that is not there fails at attach, or at MAP when attached', () => {
    calls.map(ioas, P, UNMAPPED, P);
    expect(calls.attach(vfio, ioas)).toBe('EFAULT');
    expect(calls.hwpt(device, ioas)).toBe('EFAULT');
    // A failure takes no id.
    expect(calls.attach(vfio, other)).toBe(4);
    expect(calls.map(other, P, UNMAPPED, P)).toBe('EFAULT');
    expect(calls.map(other, P, 0xffff_8880_0000_0000n, P)).toBe('EFAULT');
    expect(calls.mapAnywhere(other, UNMAPPED, P)).toBe('EFAULT');
    expect(calls.map(other, P, base, P)).toBe(0);
  });

  test('alignment', () => {
    for (const [iova, user_va, length] of [
      [P, base, 0x800n],
      [0x1800n, base, P],
      [P, base + 0x800n, P],
    ]) {
      calls.map(ioas, iova, user_va, length);
      expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
      calls.unmap(ioas, 0n, U64_MAX);
    }
    calls.attach(vfio, ioas);
    expect(calls.map(ioas, P, base, 0x800n)).toBe('EINVAL');
    expect(calls.map(ioas, 0x1800n, base, P)).toBe('EINVAL');
    expect(calls.map(ioas, P, base + 0x800n, P)).toBe('EINVAL');
    expect(calls.mapAnywhere(ioas, base, 0x800n)).toBe('EINVAL');
    expect(calls.mapAnywhere(ioas, base + 0x800n, P)).toBe('EINVAL');
    // What is there already comes first.
    expect(calls.map(ioas, P, base, P)).toBe(0);
    expect(calls.map(ioas, P, base + 0x800n, P)).toBe('EEXIST');
  });

  test('areas and allowed ranges in the interrupt window', () => {
    calls.map(ioas, INTERRUPTS + P, base, P);
    expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
    calls.unmap(ioas, 0n, U64_MAX);
    calls.allow(ioas, [[INTERRUPTS - P, INTERRUPTS]]);
    expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
    calls.allow(ioas, [[INTERRUPTS - P, INTERRUPTS - 1n]]);
    expect(calls.attach(vfio, ioas)).toBe(4);
    expect(calls.allow(ioas, [[INTERRUPTS - P, INTERRUPTS]])).toBe('EADDRINUSE');
    expect(calls.mapAnywhere(ioas, base, P)).toBe(INTERRUPTS - P);
    expect(calls.mapAnywhere(ioas, base, P)).toBe('ENOSPC');
  });

  test('beyond what the table reaches', () => {
    calls.map(ioas, 1n << 62n, base, P);
    expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
    calls.unmap(ioas, 0n, U64_MAX);
    calls.attach(vfio, ioas);
    expect(calls.map(ioas, 1n << 62n, base, P)).toBe('EINVAL');
  });

  test('of two reasons, a first attach names the address, a replacing one the memory', () => {
    calls.map(ioas, INTERRUPTS, base, P);
    calls.map(ioas, P, UNMAPPED, P);
    expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
    calls.attach(vfio, other);
    expect(calls.attach(vfio, ioas)).toBe('EFAULT');
  });

  test('a failed replace leaves the device where it was', () => {
    const now = calls.attach(vfio, other) as number;
    calls.map(ioas, INTERRUPTS, base, P);
    expect(calls.attach(vfio, ioas)).toBe('EADDRINUSE');
    expect(starts(other)).toHaveLength(2);
    expect(calls.destroy(now)).toBe('EBUSY');
    expect(calls.attach(vfio, now)).toBe(now);
  });
});

describe('copies in a domain', () => {
  test('share memory that the program has given back meanwhile', () => {
    const memory = calls.kernel.allocate(2 * PAGE);
    if (typeof memory === 'number') throw new Error('allocate');
    calls.attach(vfio, ioas);
    expect(calls.map(ioas, 0x1000n, memory.address, 2n * P)).toBe(0);
    memory.free();
    expect(calls.copy(ioas, 0x1_0000n, ioas, 0x1000n, 2n * P)).toBe(0x1_0000n);
    expect(calls.copy(ioas, 0x2_0000n, ioas, 0x2000n, P)).toBe(0x2_0000n);
    expect(calls.unmap(ioas, 0x1000n, 2n * P)).toBe(2n * P);
    expect(calls.copy(ioas, 0x3_0000n, ioas, 0x1_1000n, P)).toBe(0x3_0000n);
  });

  test('are checked as a whole before any memory is looked at', () => {
    calls.map(ioas, 0x1000n, UNMAPPED, P);
    calls.map(ioas, 0x2000n, base, P, READ);
    calls.attach(vfio, other);
    expect(calls.copy(other, 0n, ioas, 0x1000n, 2n * P)).toBe('EPERM');
    expect(calls.copy(other, 0n, ioas, 0x1000n, P)).toBe('EFAULT');
    expect(calls.unmap(other, 0n, U64_MAX)).toBe(0n);
  });
});

describe('HWPT_ALLOC', () => {
  test('the order of complaints', () => {
    const queue = calls.faultQueue();
    expect(calls.hwpt(99, 99, { __reserved: 1, data_type: 1 })).toBe('EOPNOTSUPP');
    expect(calls.hwpt(99, 99, { data_type: 1 })).toBe('EINVAL');
    expect(calls.hwpt(99, 99, { data_len: 1 })).toBe('EINVAL');
    expect(calls.hwpt(99, 99)).toBe('ENOENT');
    expect(calls.hwpt(ioas, ioas)).toBe('ENOENT');
    expect(calls.hwpt(device, 99)).toBe('EINVAL');
    expect(calls.hwpt(device, device)).toBe('EINVAL');
    expect(calls.hwpt(device, queue.id)).toBe('EINVAL');
    expect(calls.hwpt(device, ioas, { flags: 0x10 })).toBe('EOPNOTSUPP');
    const data = { data_type: 1, data_len: 24, data_uptr: 0n };
    expect(calls.hwpt(device, ioas, data)).toBe('EOPNOTSUPP');
    expect(calls.hwpt(device, ioas, { flags: FAULT, fault_id: 99 })).toBe('ENOENT');
    expect(calls.hwpt(device, ioas, { flags: FAULT, fault_id: ioas })).toBe('ENOENT');
    const both = FAULT | uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
    expect(calls.hwpt(device, ioas, { flags: both, fault_id: queue.id })).toBe('EOPNOTSUPP');
    // Nothing of all that took an id.
    expect(calls.hwpt(device, ioas, { fault_id: 77, __reserved2: 1 })).toBe(queue.id + 1);
  });

  test('nested: flags, then the parent, then its data', () => {
    const parent = calls.hwpt(device, ioas) as number;
    const data = { data_type: 1, data_len: 24, data_uptr: 0n };
    expect(calls.hwpt(device, parent)).toBe('EOPNOTSUPP');
    expect(calls.hwpt(device, parent, { ...data, flags: 1 })).toBe('EOPNOTSUPP');
    expect(calls.hwpt(device, parent, data)).toBe('EINVAL');
    expect(calls.hwpt(device, calls.attach(vfio, ioas) as number, data)).toBe('EINVAL');
  });

  test('a device without page requests cannot be attached to a HWPT with a fault queue', () => {
    const queue = calls.faultQueue();
    const faulting = calls.hwpt(device, ioas, { flags: FAULT, fault_id: queue.id }) as number;
    expect(calls.attach(vfio, faulting)).toBe('ENODEV');
    expect(calls.destroy(queue.id)).toBe('EBUSY');
    calls.shut(queue.fd);
    expect(calls.destroy(queue.id)).toBe('EBUSY');
    expect(calls.destroy(faulting)).toBe(0);
    expect(calls.destroy(queue.id)).toBe(0);
  });

  test('such a failure within one IOAS loses its reservations, as Linux 7.3 has it', () => {
    const queue = calls.faultQueue();
    const faulting = calls.hwpt(device, ioas, { flags: FAULT, fault_id: queue.id }) as number;
    const now = calls.attach(vfio, ioas) as number;
    expect(starts(ioas)).toHaveLength(2);
    expect(calls.attach(vfio, faulting)).toBe('ENODEV');
    expect(starts(ioas)).toEqual([0n]);
    expect(calls.attach(vfio, now)).toBe(now);
    expect(starts(ioas)).toEqual([0n]);
  });
});

describe('PASIDs on a device that has none', () => {
  let plain: number;
  let compatible: number;
  beforeEach(() => {
    plain = calls.hwpt(device, ioas) as number;
    compatible = calls.hwpt(device, ioas, { flags: PASID }) as number;
  });

  test('attach and detach do nothing, silently, within the rules', () => {
    expect(calls.attachPasid(vfio, 1, 99)).toBe('ENOENT');
    expect(calls.attachPasid(vfio, 1, device)).toBe('EINVAL');
    expect(calls.attachPasid(vfio, 1, plain)).toBe('EINVAL');
    expect(calls.attachPasid(vfio, 1, ioas)).toBe('EINVAL');
    expect(calls.attachPasid(vfio, 1, compatible)).toBe(compatible);
    expect(calls.attachPasid(vfio, 1, compatible)).toBe(compatible);
    expect(calls.attachPasid(vfio, 2 ** 20, compatible)).toBe(compatible);
    expect(calls.attachPasid(vfio, 2 ** 31, compatible)).toBe('ENOSPC');
    expect(calls.destroy(compatible)).toBe('EBUSY');
    expect(calls.detachPasid(vfio, 3)).toBe(0);
    expect(calls.detachPasid(vfio, 2 ** 32 - 1)).toBe(0);
    expect(calls.detachPasid(vfio, 1)).toBe(0);
    expect(calls.detachPasid(vfio, 2 ** 20)).toBe(0);
    expect(calls.destroy(compatible)).toBe(0);
  });

  test('the RID must agree', () => {
    calls.attachPasid(vfio, 1, compatible);
    expect(calls.attach(vfio, plain)).toBe('EINVAL');
    expect(calls.attach(vfio, ioas)).toBe('EINVAL');
    expect(calls.attach(vfio, compatible)).toBe(compatible);
    calls.detachPasid(vfio, 1);
    expect(calls.attach(vfio, plain)).toBe(plain);
    expect(calls.attachPasid(vfio, 1, compatible)).toBe('EINVAL');
  });

  test('PASID 0 is the RID, as far as the rest of the kernel is concerned', () => {
    expect(calls.attachPasid(vfio, 0, compatible)).toBe(compatible);
    expect(calls.attach(vfio, compatible)).toBe('EBUSY');
    expect(calls.attach(vfio, plain)).toBe('EBUSY');
    expect(calls.detach(vfio)).toBe(0);
    expect(calls.destroy(compatible)).toBe('EBUSY');
    expect(calls.detachPasid(vfio, 0)).toBe(0);
    expect(calls.destroy(compatible)).toBe(0);
  });
});

describe('GET_HW_INFO', () => {
  const info = (values: Parameters<typeof uapi.iommu_hw_info.encode>[0]) =>
    calls.call(calls.fd, uapi.IOMMU_GET_HW_INFO, { dev_id: device, ...values });

  test('lengths', () => {
    const { bytes } = calls;
    const room = { data_uptr: base };
    bytes.fill(0xaa, 0, 64);
    expect(info({ ...room, data_len: 40 })).toMatchObject({
      code: 0,
      out: { data_len: 24, out_data_type: uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD },
    });
    expect([...bytes.subarray(24, 48)]).toEqual([...Array(16).fill(0), ...Array(8).fill(0xaa)]);
    bytes.fill(0xaa, 0, 64);
    expect(info({ ...room, data_len: 4 })).toMatchObject({ code: 0, out: { data_len: 24 } });
    expect([...bytes.subarray(0, 8)]).toEqual([1, 0, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa]);
    expect(info({ data_uptr: UNMAPPED })).toMatchObject({ code: 0, out: { data_len: 24 } });
    expect(info({ data_uptr: UNMAPPED, data_len: 4 }).code).toBe('EFAULT');
    expect(info({ ...room, data_len: 2 ** 32 - 1 }).code).toBe('EFAULT');
  });

  test('types', () => {
    const flags = uapi.IOMMU_HW_INFO_FLAG_INPUT_TYPE;
    expect(info({ in_data_type: 7 }).code).toBe(0);
    expect(info({ in_data_type: 7, flags }).code).toBe('EOPNOTSUPP');
    expect(info({ in_data_type: 7, flags, data_uptr: UNMAPPED, data_len: 4 }).code).toBe('EOPNOTSUPP');
    expect(info({ in_data_type: uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD, flags }).code).toBe(0);
    expect(info({ flags }).code).toBe(0);
    expect(info({ dev_id: ioas }).code).toBe('ENOENT');
  });
});

describe('lifetimes', () => {
  test('a bound device keeps the objects of its iommufd', () => {
    calls.map(ioas, P, base, P, READ | WRITE);
    calls.attach(vfio, ioas);
    calls.shut(calls.fd);
    expect(calls.detach(vfio)).toBe(0);
    expect(calls.attach(vfio, ioas)).toBe(4);
    expect(calls.call(vfio, uapi.VFIO_DEVICE_GET_INFO, {}).code).toBe(0);
    calls.shut(vfio);
    calls.open();
    expect(calls.bind(calls.vfio())).toBe(1);
  });

  test('a fault queue too', () => {
    const queue = calls.faultQueue();
    calls.shut(vfio);
    calls.shut(calls.fd);
    expect(calls.kernel.read(queue.fd, new Uint8Array(40))).toBe(0);
  });

  test('closing the device detaches it', () => {
    calls.attach(vfio, ioas);
    calls.shut(vfio);
    expect(calls.destroy(ioas)).toBe(0);
    expect(calls.destroy(device)).toBe('ENOENT');
    expect(calls.ioas()).toBe(1);
  });
});
