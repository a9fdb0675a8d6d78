/** What programs older than iommufd get from /dev/iommu: IOMMU_VFIO_IOAS and the ioctls of VFIO containers. */
import * as uapi from '../../../lib/uapi';
import type { Fields, Literal, Sequence, Value } from '../program';
import { data, MOCK_IOVA, PAGE, script, scratch, u64, type Script } from './world';

const MAX = '0xffffffffffffffff';
const { IOMMU_VFIO_IOAS_CLEAR: CLEAR, IOMMU_VFIO_IOAS_GET: GET, IOMMU_VFIO_IOAS_SET: SET } = uapi;
const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;

/** The calls of a container, on one script. */
class Container {
  constructor(readonly s: Script) {}

  ioas(op: number, ioas_id: Value = 0, more: Fields = {}): number {
    return this.s.call('IOMMU_VFIO_IOAS', { op, ioas_id, ...more });
  }

  check(argument: Literal): number {
    return this.s.call('VFIO_CHECK_EXTENSION', {}, { argument });
  }

  type(argument: Literal): number {
    return this.s.call('VFIO_SET_IOMMU', {}, { argument });
  }

  info(argsz = 256): number {
    return this.s.call('VFIO_IOMMU_GET_INFO', { argsz });
  }

  map(iova: Value, size: Value, more: Fields = {}): number {
    return this.s.call('VFIO_IOMMU_MAP_DMA', { flags: 3, iova, size, vaddr: data(0), ...more });
  }

  unmap(iova: Value, size: Value, flags = 0): number {
    return this.s.call('VFIO_IOMMU_UNMAP_DMA', { iova, size, flags });
  }
}

/** A script on a container that has an IOAS. */
function container(name: string, write: (c: Container, ioas: Value) => void): Sequence {
  return script(name, (s) => {
    const c = new Container(s);
    const ioas = s.ioas();
    c.ioas(SET, ioas);
    write(c, ioas);
  });
}

const choosing = script('VFIO_IOAS: which IOAS, and until when', (s) => {
  const c = new Container(s);
  c.ioas(GET);
  c.ioas(CLEAR);
  for (const op of [SET, 3, 0xffff]) c.ioas(op, 99);
  c.ioas(SET, 99, { __reserved: 1 });
  const ioas = s.ioas();
  s.faultQueue();
  c.ioas(SET, 2);
  c.ioas(SET, ioas);
  c.ioas(GET, 99);
  c.ioas(SET, 99);
  c.ioas(GET);
  s.destroy(ioas);
  c.ioas(GET);
  // The next one has the same id.
  c.ioas(SET, s.ioas());
  s.destroy(ioas);
  s.ioas();
  c.ioas(GET);
  c.ioas(SET, ioas);
  c.ioas(CLEAR, ioas);
  c.ioas(GET);
});

const without = script('container: no IOAS', (s) => {
  const c = new Container(s);
  s.call('VFIO_GET_API_VERSION', {});
  for (let number = 0; number < 14; number++) {
    c.check(number);
    c.type(number);
  }
  for (const argsz of [15, 16, 24]) c.info(argsz);
  c.map(0x1_0000, PAGE);
  c.map(0x1_0000, PAGE, { flags: 4 });
  c.map(0x1_0000, PAGE, { argsz: 31 });
  c.unmap(0x1_0000, PAGE);
  c.unmap(0x1_0000, PAGE, ALL);
  c.unmap(0x1_0000, PAGE, 1);
  s.call('VFIO_IOMMU_UNMAP_DMA', { argsz: 23 });
  for (const flags of [0, 1, 4]) s.call('VFIO_IOMMU_DIRTY_PAGES', { flags });
  for (let nr = 100; nr < 128; nr++)
    s.builder.add({ op: 'ioctl', fd: s.iommufd, request: 0x3b00 + nr, fields: {}, argument: 0 });
});

const extensions = container('container: extensions and types', (c, ioas) => {
  for (const number of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xffff_ffff, 0x1_0000_0001]) {
    c.check(number);
    c.type(number);
  }
  c.s.map(ioas, 0x1_0000, 1, { user_va: data(1) });
  c.type(uapi.VFIO_TYPE1_IOMMU);
});

const describing = container('container: what GET_INFO has room for', (c, ioas) => {
  c.s.call(
    'IOMMU_IOAS_ALLOW_IOVAS',
    { ioas_id: ioas, num_iovas: 1, allowed_iovas: scratch(0) },
    { scratch: [u64(0, [0x1_0000, 0x1f_ffff])] },
  );
  for (let argsz = 15; argsz < 80; argsz++) c.info(argsz);
  c.s.bind();
  c.s.attach(ioas);
  for (let argsz = 36; argsz < 96; argsz += 4) c.info(argsz);
  c.info(0xffff_ffff);
  c.check(uapi.VFIO_DMA_CC_IOMMU);
});

const mapping = container('container: what may be mapped', (c, ioas) => {
  c.map(0x1_0000, 0);
  c.map(0x1_0000, PAGE, { vaddr: MAX });
  c.map(0x1_0000, MAX, { vaddr: 0 });
  c.map(0x1_0000, 2 * PAGE);
  c.map(0x1_1000, PAGE);
  c.map(MAX, 1);
  c.map(MAX, 2);
  c.map('0xfffffffffffff000', PAGE - 1);
  c.map(0x2_0000, PAGE, { flags: 0 });
  c.s.call('IOMMU_IOAS_COPY', {
    flags: 7,
    dst_ioas_id: ioas,
    src_ioas_id: ioas,
    length: PAGE,
    dst_iova: 0x3_0000,
    src_iova: 0x2_0000,
  });
  c.s.bind();
  c.s.attach(ioas);
  for (const iova of ['0xfffffffffffff000', MAX, 0x2_0000]) {
    c.unmap(iova, iova === MAX ? 1 : iova === 0x2_0000 ? PAGE : PAGE - 1);
    c.s.attach(ioas);
  }
  c.map(0x2_0000, PAGE, { flags: 0 });
  c.map(0x2_0800, PAGE);
  c.map(0xfee0_0000, PAGE);
  c.map(0x4_0000, PAGE, { vaddr: 0x1000 });
});

const secondVersion = container('container: type1v2 unmaps whole mappings', (c) => {
  c.type(uapi.VFIO_TYPE1v2_IOMMU);
  c.unmap(0, 0);
  c.unmap(0, 0, ALL);
  c.unmap(0, 1, ALL);
  c.unmap(1, 0, ALL);
  c.unmap(MAX, 2);
  c.unmap(MAX, 1);
  for (const at of [0x1_0000, 0x1_2000, 0x1_4000]) c.map(at, 2 * PAGE);
  c.unmap(0x1_0000, 5 * PAGE);
  c.unmap(0x1_4000, PAGE);
  c.unmap(0x1_5000, PAGE);
  c.unmap(0x8000, PAGE);
  c.unmap(0, 0, ALL);
});

/** Mappings, and what the first version cuts out of them. */
function cutting(c: Container, base: number): void {
  c.map(base, 8 * PAGE);
  for (const [at, size] of [
    [0, 1],
    [1, PAGE - 1],
    [1, PAGE],
    [PAGE - 1, 1],
    [0x800, PAGE],
    [0, PAGE],
    [2 * PAGE, PAGE],
    [PAGE, 1],
    [PAGE, 2 * PAGE],
    [-PAGE, 5 * PAGE],
    [6 * PAGE, 4 * PAGE],
    [5 * PAGE, PAGE + 1],
    [5 * PAGE, 0],
    [0, 0],
  ])
    c.unmap(base + at, size);
  c.unmap(base, 16 * PAGE);
  c.map(base, 4 * PAGE);
  c.unmap(base + PAGE, MAX);
  c.unmap(0, base + 2 * PAGE);
  c.unmap(0, MAX);
  c.unmap(0, 0, ALL);
}

const firstVersion = container('container: type1 unmaps parts of mappings', (c, ioas) => {
  c.type(uapi.VFIO_TYPE1_IOMMU);
  c.info();
  cutting(c, 0x1_0000);
  c.map(0x1_0000, 8 * PAGE, { vaddr: data(3 * PAGE) });
  c.unmap(0x1_2000, 2 * PAGE);
  c.s.unmap(ioas, 0x1_0000, PAGE);
  c.s.call('IOMMU_IOAS_COPY', {
    flags: 7,
    dst_ioas_id: ioas,
    src_ioas_id: ioas,
    length: 4 * PAGE,
    dst_iova: 0x3_0000,
    src_iova: 0x1_4000,
  });
  c.unmap(0x3_1000, PAGE);
  c.type(uapi.VFIO_TYPE1v2_IOMMU);
  c.unmap(0x3_0000, PAGE);
});

const attached = container('container: type1 with a device', (c, ioas) => {
  c.type(uapi.VFIO_TYPE1_IOMMU);
  c.s.bind();
  c.s.attach(ioas);
  cutting(c, 0x1_0000);
  c.map(0x1_0000, 8 * PAGE);
  c.unmap(0x1_2000, PAGE);
  c.s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', {});
  c.unmap(0x1_4000, PAGE);
  c.s.attach(ioas);
  c.unmap(0x1_6000, PAGE);
  c.unmap(0, 0, ALL);
});

const late = container('container: type1 after the fact', (c, ioas) => {
  c.s.bind();
  c.s.attach(ioas);
  c.map(0x1_0000, 8 * PAGE);
  c.type(uapi.VFIO_TYPE1_IOMMU);
  c.unmap(0x1_1000, PAGE);
  c.unmap(0x1_0000, 8 * PAGE);
  c.type(uapi.VFIO_TYPE1_IOMMU);
  c.map(0x1_0000, 8 * PAGE);
  c.unmap(0x1_1000, PAGE);
});

const pinned = container('mock: container: type1 leaves pinned mappings whole', (c, ioas) => {
  c.type(uapi.VFIO_TYPE1_IOMMU);
  const { hwpt } = c.s.mock(ioas);
  c.map(MOCK_IOVA, 8 * PAGE);
  const access = c.s.test(uapi.IOMMU_TEST_OP_CREATE_ACCESS, ioas, { 'create_access.flags': 1 });
  c.s.test(
    uapi.IOMMU_TEST_OP_ACCESS_PAGES,
    { fd: access },
    {
      'access_pages.iova': MOCK_IOVA,
      'access_pages.length': PAGE,
      'access_pages.uptr': data(0),
    },
  );
  c.unmap(MOCK_IOVA + 4 * PAGE, PAGE);
  c.s.close(access);
  c.unmap(MOCK_IOVA + 4 * PAGE, PAGE);
  for (const at of [0, 3, 4, 5])
    c.s.test(uapi.IOMMU_TEST_OP_MD_CHECK_MAP, hwpt, {
      'check_map.iova': MOCK_IOVA + at * PAGE,
      'check_map.length': PAGE,
      'check_map.uptr': data(at * PAGE),
    });
});

const physical = script('GET_PA: an answer where no IOMMU is in front of the device', (s) => {
  const [ioas, other] = [s.ioas(), s.ioas()];
  const ask = (iova: Value, length: Value, more: Fields = {}) =>
    s.call('IOMMU_IOAS_NOIOMMU_GET_PA', { ioas_id: ioas, iova, length, ...more });
  ask(MAX, 0, { ioas_id: 99, flags: 1 });
  ask(MAX, 0, { ioas_id: 99, __reserved: 1 });
  ask(MAX, 0, { ioas_id: 99 });
  ask(MAX, 1, { ioas_id: 99 });
  ask(0x1_0000, 1, { ioas_id: 99 });
  ask(0x1_0000, 1);
  s.map(ioas, 0x1_0000, 4 * PAGE);
  ask(0x1_0000, 1);
  s.bind();
  s.attach(ioas);
  for (const at of [0xffff, 0x1_0000, 0x1_0801, 0x1_3fff, 0x1_4000])
    for (const length of [1, PAGE, MAX]) ask(at, length);
  // The domain that was there first is asked, and then the one that stayed.
  const { stdev } = s.mock(ioas);
  s.map(ioas, MOCK_IOVA, PAGE);
  ask(MOCK_IOVA, 1);
  s.attach(other);
  ask(MOCK_IOVA, 1);
  s.attach(ioas);
  ask(MOCK_IOVA, 1);
  s.destroy(stdev);
  ask(MOCK_IOVA, 1);
});

export const compatibility: readonly Sequence[] = [
  ...[choosing, without, extensions, describing, mapping, secondVersion, firstVersion],
  ...[attached, late, pinned, physical],
];
