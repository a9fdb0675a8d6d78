/** Random calls about page tables, devices' properties and fault queues. */
import * as uapi from '../../../lib/uapi';
import type { Literal, Value, Words } from '../program';
import type { Builder, ObjectKind } from './builder';
import { hostileInteger } from './hostile';
import { mapping, scratchPointer } from './ioas';

/** Of the kernel's mock IOMMU (drivers/iommu/iommufd/iommufd_test.h). */
export const SELFTEST = {
  hwptData: 0xdead,
  hwInfo: 0xfeed_beef,
  invalidate: 0xdead_beef,
  viommu: 0xdead_beef,
  veventq: 0xbeef_beef,
  hwQueue: 0xdead_beef,
};

export function destroy(builder: Builder): void {
  const { random } = builder;
  if (builder.objects.length === 0 || random.oneIn(10)) {
    builder.ioctl('IOMMU_DESTROY', { id: random.pick<Literal>([0, 1, 2, 3, 99, 0xffff_ffff]) });
    return;
  }
  const index = random.below(builder.objects.length);
  builder.ioctl('IOMMU_DESTROY', { id: builder.objects[index].id });
  // Whether it worked nobody knows here: half of the time later calls go on using it.
  if (random.oneIn(2)) builder.objects.splice(index, 1);
}

function hwptFlags(builder: Builder): number {
  return builder.random.oneIn(2)
    ? 0
    : builder.flags(
        uapi.IOMMU_HWPT_ALLOC_NEST_PARENT,
        uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        uapi.IOMMU_HWPT_ALLOC_PASID,
        uapi.IOMMU_HWPT_FAULT_ID_VALID,
      );
}

/** A struct of driver data in scratch memory: type, length, pointer, bytes. */
function driverData(builder: Builder, mock: boolean) {
  const { random } = builder;
  const offset = random.below(16) * 8;
  const iotlb = random.oneIn(8) ? hostileInteger(random, 4) : 7;
  const words: Words = mock
    ? { offset, width: 4, values: [iotlb, random.oneIn(8) ? random.below(4) : 0] }
    : {
        offset,
        width: 8,
        values: [random.below(8), random.below(4) * 4096, random.pick<Literal>([48, 57, 39, 0])],
      };
  return {
    type: mock ? SELFTEST.hwptData : uapi.IOMMU_HWPT_DATA_VTD_S1,
    length: mock ? 8 : uapi.iommu_hwpt_vtd_s1.size,
    pointer: random.oneIn(20) ? 0x1000 : ({ at: 'scratch', offset } satisfies Value),
    words,
  };
}

/** What nested tables are made on. */
const PARENTS: readonly ObjectKind[] = ['parent', 'viommu', 'hwpt'];

export function hwptAlloc(builder: Builder): void {
  const { random } = builder;
  const nested = random.oneIn(4) && PARENTS.some((kind) => builder.hasObject(kind));
  const data = driverData(builder, builder.hasObject('stdev'));
  const withData = nested ? !random.oneIn(10) : random.oneIn(15);
  const flags =
    nested && !random.oneIn(6) ? builder.flags(uapi.IOMMU_HWPT_FAULT_ID_VALID) : hwptFlags(builder);
  const fault = flags & uapi.IOMMU_HWPT_FAULT_ID_VALID || random.oneIn(10) ? builder.id('fault') : 0;
  const label = builder.ioctl(
    'IOMMU_HWPT_ALLOC',
    {
      flags,
      dev_id: builder.id('device'),
      pt_id: nested ? builder.id(...(random.oneIn(6) ? PARENTS : PARENTS.slice(0, 2))) : builder.id('ioas'),
      data_type: withData ? data.type : 0,
      data_len: withData ? (random.oneIn(12) ? random.below(64) : data.length) : 0,
      data_uptr: withData ? data.pointer : 0,
      fault_id: fault,
    },
    withData ? { scratch: [data.words] } : {},
  );
  const kind = flags & uapi.IOMMU_HWPT_ALLOC_NEST_PARENT ? 'parent' : 'hwpt';
  builder.made(nested ? 'nested' : kind, label, 'out_hwpt_id');
}

export function invalidate(builder: Builder): void {
  const { random } = builder;
  const mock = builder.hasObject('stdev');
  const offset = random.below(16) * 8;
  const count = random.pick([0, 1, 1, 2, 3]);
  const viommu = builder.hasObject('viommu') && random.oneIn(3);
  const size = mock ? (viommu ? 12 : 8) : uapi.iommu_hwpt_vtd_s1_invalidate.size;
  const values: Value[] = [];
  for (let i = 0; i < count; i++) {
    values.push(random.oneIn(6) ? random.below(4) : 0);
    if (viommu) values.push(random.below(4));
    if (mock) values.push(random.below(random.oneIn(6) ? 8 : 4));
    else values.push(0, random.below(4), 0, random.below(2), 0);
  }
  builder.ioctl(
    'IOMMU_HWPT_INVALIDATE',
    {
      hwpt_id: viommu ? builder.id('viommu') : builder.id('nested', 'hwpt'),
      data_uptr: random.oneIn(15) ? 0 : { at: 'scratch', offset },
      data_type: mock ? SELFTEST.invalidate : random.oneIn(15) ? 1 : 0,
      entry_len: random.oneIn(12) ? random.pick([0, 4, size + 4, 4096, 4097]) : size,
      entry_num: count,
    },
    { scratch: [{ offset, width: 4, values }] },
  );
}

export function hardwareInfo(builder: Builder): void {
  const { random } = builder;
  const data_len = random.pick([0, 4, 8, 16, 23, 24, 25, 64, 300]);
  builder.ioctl('IOMMU_GET_HW_INFO', {
    flags: random.oneIn(5) ? random.below(4) : 0,
    dev_id: builder.id('device'),
    data_len,
    data_uptr: data_len === 0 && random.oneIn(2) ? 0 : scratchPointer(builder, data_len),
    in_data_type: random.oneIn(5) ? random.pick([1, 2, SELFTEST.hwInfo]) : 0,
  });
}

export function setDirtyTracking(builder: Builder): void {
  builder.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', {
    hwpt_id: builder.id('hwpt'),
    flags: builder.random.below(2),
  });
}

export function dirtyBitmap(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  builder.ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', {
    hwpt_id: builder.id('hwpt'),
    flags: random.below(random.oneIn(10) ? 4 : 2),
    iova: found?.at(0) ?? 0x100_0000,
    length: found?.length ?? 0x1_0000,
    page_size: random.pick([4096, 2048, 4096, 0, 3000, 2 ** 21]),
    data: scratchPointer(builder, 4096),
  });
}

export function faultQueueAlloc(builder: Builder): void {
  const label = builder.ioctl('IOMMU_FAULT_QUEUE_ALLOC', {});
  builder.made('fault', label, 'out_fault_id');
  builder.file('fault', label);
}
