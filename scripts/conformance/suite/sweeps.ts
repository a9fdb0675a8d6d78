/** Every size and every field of every struct, one at a time, in a call that is otherwise right. */
import * as uapi from '../../../lib/uapi';
import { isDescriptor, isPointer } from '../generate/hostile';
import { SELFTEST } from '../generate/hwpt';
import { SMALL_PAGES } from '../generate/ioas';
import { PAIR_PATHS, VFIO_PATH } from '../generate/vfio';
import { layouts, type Layout } from '../layouts';
import type { FdRef, Fields, Literal, Sequence, Value } from '../program';
import { data, MOCK_IOVA, PAGE, Script, script, scratch, u64 } from './world';

/** What the calls of a sweep refer to. */
interface World {
  readonly ioas: Value;
  readonly other: Value;
  readonly device: Value;
  readonly hwpt: Value;
  readonly fault: Value;
  readonly iommufd: FdRef;
  readonly eventfd: FdRef;
  readonly mock: { stdev: Value; device: Value; hwpt: Value };
  readonly parent: Value;
  readonly nested: Value;
  readonly viommu: Value;
  readonly access: FdRef;
}

/** Fields that make a call right, by ioctl; test commands by `IOMMU_TEST_CMD op`. Those not here start with zeros. */
function typical(world: World): Record<string, Fields> {
  const { ioas, other, device, hwpt } = world;
  const size = { length: PAGE };
  return {
    IOMMU_DESTROY: { id: other },
    IOMMU_IOAS_ALLOW_IOVAS: { ioas_id: other, num_iovas: 1, allowed_iovas: scratch(1024) },
    IOMMU_IOAS_COPY: {
      flags: 7,
      dst_ioas_id: other,
      src_ioas_id: ioas,
      dst_iova: 0x20_0000,
      src_iova: MOCK_IOVA,
      ...size,
    },
    IOMMU_IOAS_IOVA_RANGES: { ioas_id: ioas, num_iovas: 8, allowed_iovas: scratch(0) },
    IOMMU_IOAS_MAP: { flags: 7, ioas_id: other, user_va: data(0), iova: 0x30_0000, ...size },
    IOMMU_IOAS_MAP_FILE: { flags: 7, ioas_id: other, fd: { fd: 'memfd' }, iova: 0x40_0000, ...size },
    IOMMU_IOAS_UNMAP: { ioas_id: ioas, iova: MOCK_IOVA, ...size },
    IOMMU_IOAS_NOIOMMU_GET_PA: { ioas_id: ioas, iova: MOCK_IOVA, length: PAGE },
    IOMMU_OPTION: { option_id: 1, op: 1, object_id: ioas },
    IOMMU_HWPT_ALLOC: { dev_id: device, pt_id: ioas },
    IOMMU_GET_HW_INFO: { dev_id: device, data_len: 24, data_uptr: scratch(0) },
    IOMMU_HWPT_SET_DIRTY_TRACKING: { hwpt_id: world.parent, flags: 1 },
    IOMMU_HWPT_GET_DIRTY_BITMAP: {
      hwpt_id: world.parent,
      iova: MOCK_IOVA,
      page_size: PAGE,
      data: scratch(0),
      ...size,
    },
    IOMMU_HWPT_INVALIDATE: {
      hwpt_id: world.nested,
      data_uptr: scratch(0),
      data_type: SELFTEST.invalidate,
      entry_len: 8,
      entry_num: 1,
    },
    ...typicalVirtual(world),
    IOMMU_VFIO_IOAS: { ioas_id: ioas, op: 1 },
    VFIO_IOMMU_MAP_DMA: { flags: 3, vaddr: data(0), iova: 0x60_0000, size: PAGE },
    VFIO_IOMMU_UNMAP_DMA: { iova: MOCK_IOVA, size: PAGE },
    VFIO_DEVICE_BIND_IOMMUFD: { iommufd: { fd: world.iommufd } },
    VFIO_DEVICE_ATTACH_IOMMUFD_PT: { pt_id: hwpt },
    VFIO_DEVICE_SET_IRQS: {
      argsz: 20,
      flags: uapi.VFIO_IRQ_SET_DATA_NONE | uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
    },
    VFIO_DEVICE_IOEVENTFD: {
      flags: uapi.VFIO_DEVICE_IOEVENTFD_32,
      offset: 4,
      fd: { fd: world.eventfd },
    },
    VFIO_DEVICE_FEATURE: {
      flags: uapi.VFIO_DEVICE_FEATURE_PROBE | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
    },
    ...typicalTests(world),
  };
}

function typicalVirtual({ mock: { device: dev_id }, parent, viommu }: World): Record<string, Fields> {
  const data = { data_len: 24, data_uptr: scratch(0) };
  const memory = { nesting_parent_iova: MOCK_IOVA, length: PAGE };
  return {
    IOMMU_VIOMMU_ALLOC: { type: SELFTEST.viommu, dev_id, hwpt_id: parent, ...data },
    IOMMU_VDEVICE_ALLOC: { viommu_id: viommu, dev_id, virt_id: 5 },
    IOMMU_VEVENTQ_ALLOC: { viommu_id: viommu, type: SELFTEST.veventq, veventq_depth: 1 },
    IOMMU_HW_QUEUE_ALLOC: { viommu_id: viommu, type: SELFTEST.hwQueue, ...memory },
  };
}

function typicalTests({ ioas, other, mock, parent, nested, access }: World): Record<string, Fields> {
  const found = { iova: MOCK_IOVA, length: PAGE };
  const member = (name: string, values: Fields): Fields =>
    Object.fromEntries(Object.entries(values).map(([field, value]) => [`${name}.${field}`, value]));
  const commands: Record<number, Fields> = {
    [uapi.IOMMU_TEST_OP_ADD_RESERVED]: {
      id: other,
      ...member('add_reserved', { start: 0x50_0000, length: PAGE }),
    },
    [uapi.IOMMU_TEST_OP_MOCK_DOMAIN]: { id: ioas },
    [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS]: { id: ioas },
    [uapi.IOMMU_TEST_OP_MD_CHECK_MAP]: { id: mock.hwpt, ...member('check_map', { ...found, uptr: data(0) }) },
    [uapi.IOMMU_TEST_OP_MD_CHECK_REFS]: member('check_refs', { length: PAGE, uptr: scratch(SMALL_PAGES) }),
    [uapi.IOMMU_TEST_OP_CREATE_ACCESS]: { id: ioas },
    [uapi.IOMMU_TEST_OP_ACCESS_PAGES]: {
      id: { fd: access },
      ...member('access_pages', { ...found, uptr: data(0) }),
    },
    [uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES]: { id: { fd: access } },
    [uapi.IOMMU_TEST_OP_ACCESS_RW]: {
      id: { fd: access },
      ...member('access_rw', { ...found, uptr: scratch(0) }),
    },
    [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE]: { id: mock.stdev, 'mock_domain_replace.pt_id': parent },
    [uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS]: { id: { fd: access }, 'access_replace_ioas.ioas_id': other },
    [uapi.IOMMU_TEST_OP_DIRTY]: {
      id: parent,
      ...member('dirty', { ...found, page_size: PAGE, uptr: scratch(0) }),
    },
    [uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB]: { id: nested, 'check_iotlb.iotlb': 7 },
    [uapi.IOMMU_TEST_OP_TRIGGER_IOPF]: member('trigger_iopf', { dev_id: mock.device, addr: MOCK_IOVA }),
    [uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE]: { id: mock.device, 'check_dev_cache.cache': 0xba_ddad },
    [uapi.IOMMU_TEST_OP_TRIGGER_VEVENT]: { 'trigger_vevent.dev_id': mock.device },
    [uapi.IOMMU_TEST_OP_PASID_ATTACH]: {
      id: mock.stdev,
      ...member('pasid_attach', { pasid: 1, pt_id: parent }),
    },
    [uapi.IOMMU_TEST_OP_PASID_REPLACE]: {
      id: mock.stdev,
      ...member('pasid_replace', { pasid: 1, pt_id: parent }),
    },
    [uapi.IOMMU_TEST_OP_PASID_DETACH]: { id: mock.stdev, 'pasid_detach.pasid': 1 },
    [uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT]: { id: mock.stdev, 'pasid_check.pasid': 1 },
    [uapi.IOMMU_TEST_OP_DMABUF_GET]: { 'dmabuf_get.length': 0 },
    [uapi.IOMMU_TEST_OP_DMABUF_REVOKE]: { 'dmabuf_revoke.dmabuf_fd': { fd: 'memfd' } },
  };
  return Object.fromEntries(
    Object.entries(commands).map(([op, fields]) => [`IOMMU_TEST_CMD ${op}`, { op: Number(op), ...fields }]),
  );
}

/** One of everything. The mock's objects are left out where a kernel has no mock IOMMU. */
function makeWorld(made: Script, withMock: boolean, real: boolean, path?: string): World {
  const ioas = made.ioas();
  made.map(ioas, MOCK_IOVA, 4 * PAGE);
  const other = made.ioas();
  made.call('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: other });
  // Test commands are for the mock's own devices only.
  const device = real ? made.bind(path) : 0;
  const hwpt = made.hwpt(device, ioas);
  const { id: fault } = made.faultQueue();
  const eventfd = made.builder.add({ op: 'eventfd', initial: 0 });
  const nothing = { stdev: 0, device: 0, hwpt: 0 };
  const world = { ioas, other, device, hwpt, fault, eventfd, iommufd: made.iommufd };
  if (!withMock) return { ...world, mock: nothing, parent: 0, nested: 0, viommu: 0, access: 'none' };
  const mock = made.mock(ioas, uapi.MOCK_FLAGS_DEVICE_PASID);
  const flags =
    uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING | uapi.IOMMU_HWPT_ALLOC_PASID;
  const parent = made.hwpt(mock.device, ioas, flags);
  const nested = made.nested(mock.device, parent);
  const viommu = made.viommu(mock.device, parent);
  const access = made.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas);
  return { ...world, mock, parent, nested, viommu, access };
}

const SMALL: readonly Literal[] = [0, 1, 2, 3, 0xff];
const WORDS: readonly Literal[] = [...SMALL, 0x8000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const LONGS: readonly Literal[] = [
  ...WORDS,
  0x1000,
  0x1001,
  '0x100000000',
  '0x7fffffffffffffff',
  '0x8000000000000000',
  '0xfffffffffffff000',
  '0xfffffffffffffffe',
  '0xffffffffffffffff',
];

/** Values for a field: limits, and for addresses and descriptors what is surely none. */
function values(path: string, size: number): readonly Literal[] {
  if (isDescriptor(path)) return ['-1', '-2147483648', 0x7fff_fff0];
  if (isPointer(path)) return [0, 1, 0x1000, 0x8000_0000_0000];
  if (path === 'op') return [0, 24, 0xffff_ffff];
  return size === 8 ? LONGS : size === 4 ? WORDS : SMALL;
}

type Sweep = (made: Script, key: string, layout: Layout, fields: Fields) => void;

const RANGES = u64(1024, [0x10_0000, 0x1ff_ffff]);

const sizes: Sweep = (made, _key, { row, sizeField }, fields) => {
  if (!sizeField) return;
  const { size } = row.struct;
  for (let tried = 0; tried <= size + 8; tried += 4)
    made.call(row.name, { ...fields, [sizeField]: tried }, { scratch: [RANGES] });
  for (const tried of [row.minimumSize - 1, row.minimumSize + 1, size - 1, size + 1, 0xffff_ffff])
    made.call(row.name, { ...fields, [sizeField]: Math.max(tried, 0) }, { scratch: [RANGES] });
  for (const tail of [0, 1, 8, 100])
    made.call(
      row.name,
      { ...fields, [sizeField]: size + tail },
      { scratch: [RANGES], extra: { offset: size + tail - (tail ? 1 : 0), width: 1, values: [1] } },
    );
  for (const argument of [0, 1, 0x1000, 0x8000_0000_0000]) made.call(row.name, {}, { argument });
};

/** A sweep over the values of one field. */
function field(path: string, size: number): Sweep {
  return (made, _key, { row }, fields) => {
    for (const value of values(path, size))
      made.call(row.name, { ...fields, [path]: value }, { scratch: [RANGES] });
  };
}

/** The leaves that a call with these fields uses: of the test command's union, one member. */
function usedLeaves({ leaves, sizeField }: Layout, fields: Fields) {
  const members = new Set(Object.keys(fields).map((path) => path.split('.')[0]));
  return leaves.filter(
    ({ path }) =>
      path !== sizeField && path !== 'op' && (!path.includes('.') || members.has(path.split('.')[0])),
  );
}

function sweep(name: string, key: string, withMock: boolean, each: Sweep): Sequence {
  return script(name, (made) => {
    // What resets a bus is asked of a device that shares one.
    const path = key.includes('HOT_RESET') ? PAIR_PATHS[0] : VFIO_PATH;
    const world = makeWorld(made, withMock, !key.startsWith('IOMMU_TEST_CMD'), path);
    const fields = typical(world)[key] ?? {};
    each(made, key, layouts.get(key.split(' ')[0])!, fields);
  });
}

/** All sweeps over the ioctls that both kernels have. */
export function sweeps(excluded: readonly string[]): Sequence[] {
  const withMock = !excluded.includes('IOMMU_TEST_CMD');
  const known = typical(makeWorld(new Script(), withMock, true));
  const names = [...layouts.keys()].filter((name) => name !== 'IOMMU_TEST_CMD' && !excluded.includes(name));
  const tests = withMock ? Object.keys(known).filter((key) => key.startsWith('IOMMU_TEST_CMD ')) : [];
  return [...names, ...tests].flatMap((key) => {
    const layout = layouts.get(key.split(' ')[0])!;
    return [
      sweep(`sizes of ${key}`, key, withMock, sizes),
      ...usedLeaves(layout, known[key] ?? {}).map(({ path, size }) =>
        sweep(`${path} of ${key}`, key, withMock, field(path, size)),
      ),
    ];
  });
}
