/** Virtual IOMMUs of the kernel's mock IOMMU, and what hangs on them. */
import * as uapi from '../../../lib/uapi';
import { SELFTEST } from '../generate/hwpt';
import type { Fields, Sequence, Value } from '../program';
import { FIXED_RW, MOCK_IOVA, PAGE, Script, data, script, scratch, u32 } from './world';

const ALL = '0xffffffffffffffff';
const { IOMMU_HWPT_ALLOC_NEST_PARENT: NEST, IOMMU_HWPT_ALLOC_PASID: PASID } = uapi;

/** A mock device with a virtual IOMMU. */
function start(s: Script) {
  const ioas = s.ioas();
  const { device, stdev } = s.mock(ioas);
  const parent = s.hwpt(device, ioas, NEST);
  return { ioas, device, stdev, parent, viommu: s.viommu(device, parent) };
}

function trigger(s: Script, device: Value): void {
  s.test(uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { 'trigger_vevent.dev_id': device });
}

/** The call itself is the descriptor. */
function eventQueue(s: Script, viommu_id: Value, veventq_depth: Value, more: Fields = {}) {
  const fd = s.call('IOMMU_VEVENTQ_ALLOC', { viommu_id, type: SELFTEST.veventq, veventq_depth, ...more });
  return { fd, id: { of: fd, field: 'out_veventq_id' } };
}

const allocation = script('viommu: allocation', (s) => {
  const { ioas, device, parent, stdev, viommu } = start(s);
  const flat = s.hwpt(device, ioas);
  for (const hwpt of [flat, ioas, device, viommu, 0, 99]) s.viommu(device, hwpt);
  for (const dev of [stdev, parent, 0]) s.viommu(dev, parent);
  for (const type of [0, 1, 2]) s.viommu(device, parent, { type });
  s.viommu(device, parent, { flags: 1 });
  for (const data_len of [1, 7, 8, 12, 16, 24, 25, 4096])
    s.viommu(device, parent, { data_len, data_uptr: scratch(0) });
  for (const data_uptr of [0, 0x1000, 0x8000_0000_0000])
    s.viommu(device, parent, { data_len: 24, data_uptr });
  s.destroy(parent);
  s.destroy(viommu);
  s.viommu(device, parent);
});

const devices = script('viommu: devices, and the ids they had', (s) => {
  const { ioas, device, parent, stdev, viommu } = start(s);
  const other = s.viommu(device, parent);
  const second = s.mock(ioas);
  for (const virt_id of [0, '0xffffffffffffffff']) s.destroy(s.vdevice(viommu, device, virt_id));
  const vdevice = s.vdevice(viommu, device, 7);
  s.vdevice(viommu, device, 8);
  s.vdevice(other, device, 7);
  s.vdevice(viommu, second.device, 7);
  s.vdevice(device, second.device, 9);
  s.vdevice(viommu, viommu, 9);
  s.vdevice(other, second.device, 7);
  s.destroy(viommu);
  s.destroy(stdev);
  s.destroy(vdevice);
  s.vdevice(viommu, device, 7);
  for (let i = 0; i < 4; i++) s.ioas();
  s.destroy(vdevice);
  s.destroy(viommu);
});

const attachment = script('viommu: nested tables and who may be attached to them', (s) => {
  const { ioas, device, parent, stdev, viommu } = start(s);
  for (const bits of [0, NEST, PASID, uapi.IOMMU_HWPT_FAULT_ID_VALID]) s.nested(device, viommu, bits);
  s.nested(device, viommu, 0, { data_type: 1 });
  s.nested(device, viommu, 0, { data_type: 0, data_len: 0 });
  s.nested(device, viommu, 0, { data_len: 3 });
  s.nested(device, viommu, 0, { data_uptr: 0x1000 });
  const nested = s.nested(device, viommu);
  s.replace(stdev, nested);
  trigger(s, device);
  const vdevice = s.vdevice(viommu, device, 3);
  s.replace(stdev, nested);
  s.mock(nested);
  s.destroy(vdevice);
  s.replace(stdev, nested);
  s.replace(stdev, s.nested(device, viommu));
  s.destroy(viommu);
  s.replace(stdev, ioas);
  s.replace(stdev, nested);
  s.destroy(parent);
});

const invalidation = script('viommu: INVALIDATE', (s) => {
  const { device, viommu } = start(s);
  const check = (id: number, cache: number) =>
    s.test(uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, device, {
      'check_dev_cache.id': id,
      'check_dev_cache.cache': cache,
    });
  const invalidate = (words: number[], more: Fields = {}) =>
    s.call(
      'IOMMU_HWPT_INVALIDATE',
      {
        hwpt_id: viommu,
        data_uptr: scratch(0),
        data_type: SELFTEST.invalidate,
        entry_len: 12,
        entry_num: words.length / 3,
        ...more,
      },
      { scratch: [u32(0, words)] },
    );
  invalidate([0, 3, 1]);
  s.vdevice(viommu, device, 3);
  invalidate([0, 3, 1, 0, 4, 2, 0, 3, 3]);
  check(1, 0);
  check(2, 0xba_ddad);
  invalidate([2, 3, 0]);
  invalidate([0, 3, 4]);
  invalidate([0, 3, 0, 2, 3, 0]);
  for (const entry_num of [0, 1]) invalidate([0, 3, 0], { entry_num, data_type: 1 });
  invalidate([], { entry_num: 0 });
  for (const entry_len of [4, 8, 16, 4096, 4097, 0]) invalidate([0, 3, 2, 0], { entry_len, entry_num: 1 });
  invalidate([0, 3, 2, 1], { entry_len: 16, entry_num: 1 });
  for (const entry_num of [1, 349_525, 349_526, 524_288, 524_289])
    invalidate([], { entry_num, data_uptr: 0x1000 });
  invalidate([1, 3, 3]);
  for (let id = 0; id < 5; id++) check(id, 0);
});

const events = script('viommu: events, read and lost', (s) => {
  const { device, stdev, viommu } = start(s);
  s.vdevice(viommu, device, 0x1_0000_0005);
  s.replace(stdev, s.nested(device, viommu));
  trigger(s, device);
  for (const [depth, more] of [
    [0, {}],
    [524_289, {}],
    [1, { type: 0 }],
    [1, { flags: 1 }],
    [1, { __reserved: 1 }],
    [1, { viommu_id: device }],
  ] as const)
    eventQueue(s, viommu, depth, more);
  const { fd, id } = eventQueue(s, viommu, 2);
  eventQueue(s, viommu, 2);
  eventQueue(s, viommu, 524_288, { type: 1 });
  s.read(fd, 0, 7, 8);
  s.write(fd, 8, 1);
  s.poll(fd);
  for (let i = 0; i < 5; i++) trigger(s, device);
  s.poll(fd);
  s.read(fd, 8, 11, 12);
  // There is room again: what says that events were lost makes way.
  trigger(s, device);
  trigger(s, device);
  s.read(fd, 31, 64, 8);
  for (let i = 0; i < 4; i++) trigger(s, device);
  s.read(fd, 24, 64);
  s.poll(fd);
  s.destroy(id);
  s.destroy(viommu);
  s.close(fd);
  trigger(s, device);
  s.destroy(id);
  trigger(s, device);
});

/** Linux looks up which id a device has only when its virtual IOMMU changes. */
const staleId = script('viommu: the id of an event', (s) => {
  const { device, ioas, stdev, viommu } = start(s);
  const { fd } = eventQueue(s, viommu, 4);
  const [one, two] = [s.nested(device, viommu), s.nested(device, viommu)];
  const first = s.vdevice(viommu, device, 5);
  s.replace(stdev, one);
  trigger(s, device);
  s.destroy(first);
  trigger(s, device);
  const second = s.vdevice(viommu, device, 6);
  s.replace(stdev, two);
  trigger(s, device);
  s.replace(stdev, ioas);
  trigger(s, device);
  s.replace(stdev, one);
  trigger(s, device);
  s.read(fd, 64);
  s.destroy(second);
  s.vdevice(viommu, device, 0);
  s.replace(stdev, ioas);
  s.replace(stdev, one);
  trigger(s, device);
});

const queues = script('viommu: hardware queues', (s) => {
  const { ioas, device, viommu } = start(s);
  const fields = { viommu_id: viommu, type: SELFTEST.hwQueue, nesting_parent_iova: MOCK_IOVA, length: PAGE };
  const queue = (more: Fields = {}) => ({
    of: s.call('IOMMU_HW_QUEUE_ALLOC', { ...fields, ...more }),
    field: 'out_hw_queue_id',
  });
  queue();
  s.map(ioas, MOCK_IOVA, 2 * PAGE);
  s.map(ioas, MOCK_IOVA + 2 * PAGE, PAGE, { user_va: data(2 * PAGE) });
  s.map(ioas, MOCK_IOVA + 3 * PAGE, PAGE, { user_va: data(8 * PAGE) });
  s.map(ioas, MOCK_IOVA + 4 * PAGE, PAGE, { flags: FIXED_RW & ~uapi.IOMMU_IOAS_MAP_READABLE });
  for (const more of [{ flags: 1 }, { type: 0 }, { type: 1 }, { length: 0 }, { viommu_id: device }])
    queue(more);
  for (const length of [
    3 * PAGE + 1,
    4 * PAGE,
    5 * PAGE,
    6 * PAGE,
    ALL,
    '0xfffffffffefff000',
    '0x10000000000',
  ])
    queue({ length });
  queue({ nesting_parent_iova: 0, length: ALL });
  queue({ nesting_parent_iova: MOCK_IOVA + 0xfff, length: 1 });
  queue({ index: 2 });
  s.unmap(ioas, MOCK_IOVA, 4 * PAGE);
});

const liveQueues = script('viommu: hardware queues keep their memory', (s) => {
  const { ioas, parent, viommu } = start(s);
  for (let page = 0; page < 4; page++)
    s.map(ioas, MOCK_IOVA + page * PAGE, PAGE, { user_va: data(page * PAGE) });
  const fields = { viommu_id: viommu, type: SELFTEST.hwQueue, nesting_parent_iova: MOCK_IOVA + PAGE };
  const queue = (index: number, length: number) => ({
    of: s.call('IOMMU_HW_QUEUE_ALLOC', { ...fields, index, length }),
    field: 'out_hw_queue_id',
  });
  queue(1, PAGE);
  const first = queue(0, 2 * PAGE);
  queue(0, PAGE);
  const second = queue(1, PAGE);
  s.ioas();
  s.map(ioas, MOCK_IOVA + 8 * PAGE, 0x800);
  s.unmap(ioas, MOCK_IOVA + PAGE, 1);
  s.unmap(ioas, 0, ALL);
  s.unmap(ioas, MOCK_IOVA, PAGE);
  s.unmap(ioas, MOCK_IOVA + 3 * PAGE, PAGE);
  for (const id of [viommu, parent, first, { ...first, plus: 1 }, second, first]) s.destroy(id);
  s.map(ioas, MOCK_IOVA + 8 * PAGE, 0x800);
  s.unmap(ioas, 0, ALL);
  queue(0, PAGE);
});

/** Linux 7.3 takes the first queue for the one that goes. */
const forgottenQueue = script('viommu: which hardware queue is gone', (s) => {
  const { ioas, viommu } = start(s);
  s.map(ioas, MOCK_IOVA, 2 * PAGE);
  const fields = { viommu_id: viommu, type: SELFTEST.hwQueue, nesting_parent_iova: MOCK_IOVA, length: PAGE };
  const queue = (index: number) => ({
    of: s.call('IOMMU_HW_QUEUE_ALLOC', { ...fields, index }),
    field: 'out_hw_queue_id',
  });
  const [first, second] = [queue(0), queue(1)];
  s.destroy(second);
  queue(1);
  const third = queue(0);
  queue(0);
  queue(1);
  s.destroy(first);
  queue(0);
  for (const id of [third, viommu]) s.destroy(id);
});

const unaligned = script('viommu: a hardware queue makes mappings page-aligned', (s) => {
  const { ioas, viommu } = start(s);
  s.map(ioas, MOCK_IOVA, 0x800);
  s.map(ioas, MOCK_IOVA + PAGE, PAGE, { user_va: data(PAGE) });
  const fields = { viommu_id: viommu, type: SELFTEST.hwQueue, nesting_parent_iova: MOCK_IOVA + PAGE };
  const allocate = () => s.call('IOMMU_HW_QUEUE_ALLOC', { ...fields, length: 0x800 });
  allocate();
  s.unmap(ioas, MOCK_IOVA, 0x800);
  allocate();
  s.call('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: 4, allowed_iovas: scratch(0) });
  s.map(ioas, MOCK_IOVA, 0x800);
});

const pages = script('viommu: memory that programs map', (s) => {
  const { device, parent } = start(s);
  const more = { data_len: 24, data_uptr: scratch(0) };
  const [one, two, three] = [0, 1, 2].map(() => s.viommu(device, parent, more));
  for (const [offset, length] of [
    [0, 8192],
    [4096, 4096],
    [4096, 12288],
    [8192, 4096],
    [0x7000, 8192],
  ])
    s.mmap(offset, length);
  const mapped = s.mmap(0x3000, 8191);
  s.destroy(two);
  s.destroy(one);
  s.mmap(0x1000, 8192);
  s.munmap(mapped);
  s.destroy(two);
  s.viommu(device, parent, more);
  s.viommu(device, parent, more);
  s.destroy(three);
});

export const viommuSemantics: readonly Sequence[] = [
  ...[allocation, devices, attachment, invalidation, events, staleId],
  ...[queues, liveQueues, forgottenQueue, unaligned, pages],
];
