/** Virtual IOMMUs, their devices, event queues and hardware queues, on the mock IOMMU. */
import type { AddressSpace, EventQueue, MockDevice } from '../../lib';
import * as uapi from '../../lib/uapi';
import {
  IOVA,
  lowestId,
  MOCK_EVENTS,
  MOCK_TABLE,
  MOCK_VIOMMU,
  openMock,
  openNesting,
  testCommand,
} from './mock-objects';
import { errorOf, PAGE, sleep } from './support';

const QUEUE = uapi.IOMMU_HW_QUEUE_TYPE_SELFTEST;

/** A device that a guest calls 0x99, attached to a page table of the guest's. */
function setUp() {
  const made = openNesting();
  const { iommu, device, parent } = made;
  const viommu = iommu.createVirtualIommu(device, { parent, type: MOCK_VIOMMU });
  const virtual = viommu.createDevice(device, { virtId: 0x99 });
  const nested = iommu.createPageTable(device, { parent: viommu, pageTable: MOCK_TABLE });
  device.attach(nested);
  return { ...made, viommu, virtual, nested };
}

describe('virtual IOMMU', () => {
  test('answers in the data it was given, which stays ours', () => {
    const { iommu, device, parent } = openNesting();
    const data = uapi.iommu_viommu_selftest.encode({ in_data: 0x1234 });
    const viommu = iommu.createVirtualIommu(device, { parent, type: MOCK_VIOMMU, data });
    expect(uapi.iommu_viommu_selftest.decode(viommu.data)).toMatchObject({ out_data: 0x1234 });
    expect(uapi.iommu_viommu_selftest.decode(data).out_data).toBe(0);
    expect(viommu.parent === parent).toBe(true);
  });

  test('names devices as the guest does, each once', () => {
    const { iommu, device, viommu, virtual } = setUp();
    expect(virtual).toMatchObject({ virtId: 0x99n, closed: false });
    expect(device.virtualDevice === virtual && virtual.device === device).toBe(true);
    expect(viommu.devices.map(({ virtId }) => virtId)).toEqual([0x99n]);
    const again = errorOf(() => viommu.createDevice(device, { virtId: 5 }));
    expect(again).toMatchObject({ code: 'EEXIST', request: 'IOMMU_VDEVICE_ALLOC' });
    const other = iommu.createMockDevice({ cookie: 2 });
    expect(errorOf(() => viommu.createDevice(other, { virtId: 0x99n }))).toMatchObject({ code: 'EEXIST' });
    virtual.close();
    virtual.close();
    expect(device.virtualDevice).toBeUndefined();
    expect(viommu.createDevice(other, { virtId: 0x99n }).virtId).toBe(0x99n);
    expect(() => viommu.createDevice(other, { virtId: -1 })).toThrow(RangeError);
    expect(() => viommu.createDevice({} as MockDevice, { virtId: 1 })).toThrow(TypeError);
  });

  test('a virtual device goes with its device, and leaves no tombstone', () => {
    const { iommu, device, virtual, viommu } = setUp();
    device.close();
    expect(virtual.closed).toBe(true);
    expect(viommu.devices).toEqual([]);
    const free = lowestId(iommu);
    expect(free).toBeLessThanOrEqual(virtual.id);
    viommu.close();
  });

  test('a page table nested here takes a device only once the guest has a name for it', () => {
    const { iommu, device, parent } = openNesting();
    const viommu = iommu.createVirtualIommu(device, { parent, type: MOCK_VIOMMU });
    const nested = iommu.createPageTable(device, { parent: viommu, pageTable: MOCK_TABLE });
    expect(nested.parent === parent).toBe(true);
    expect(errorOf(() => device.attach(nested))).toMatchObject({ code: 'ENOENT' });
    viommu.createDevice(device, { virtId: 1 });
    device.attach(nested);
    expect(device.attached() === nested).toBe(true);
  });

  test("carries out the guest's invalidations", () => {
    const { iommu, device, viommu } = setUp();
    const cache = (id: number, value: number) =>
      testCommand(iommu, {
        op: uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE,
        id: device.id,
        check_dev_cache: { id, cache: value },
      });
    const entry = (vdev_id: number, cache_id: number) =>
      uapi.iommu_viommu_invalidate_selftest.encode({ vdev_id, cache_id });
    const type = uapi.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST;
    expect(cache(2, uapi.IOMMU_TEST_DEV_CACHE_DEFAULT)).toBe(0);
    viommu.invalidate({ type, entries: [entry(0x99, 2)] });
    expect(cache(2, 0)).toBe(0);
    expect(
      errorOf(() => viommu.invalidate({ type, entries: [entry(0x99, 0), entry(0x98, 0)] })),
    ).toMatchObject({
      code: 'EINVAL',
      hint: 'entry 1 was refused; the 1 before it were carried out',
    });
    expect(cache(0, 0)).toBe(0);
    expect(() => viommu.invalidate({ type, entries: [entry(1, 1), new Uint8Array(4)] })).toThrow(RangeError);
    expect(errorOf(() => viommu.invalidate({ commands: [[1n, 2n]] }))).toMatchObject({ code: 'EINVAL' });
  });

  test('closes with everything on it, and nothing is left behind', () => {
    const { iommu, device, parent, viommu, virtual, nested } = setUp();
    const events = viommu.createEventQueue({ type: MOCK_EVENTS, depth: 4 });
    const space = parent.space as AddressSpace;
    space.map(iommu.allocateDma(PAGE), { iova: IOVA });
    const queue = viommu.createHardwareQueue({ type: QUEUE, index: 0, iova: IOVA, length: PAGE });
    parent.close();
    expect([viommu, virtual, nested, events, queue].map(({ closed }) => closed)).toEqual(
      [1, 2, 3, 4, 5].map(() => true),
    );
    expect(device.attached()).toBeUndefined();
    expect(space.unmapAll()).toBe(PAGE);
    expect(lowestId(iommu)).toBe(parent.id);
    for (const use of [
      () => viommu.createDevice(device, { virtId: 1 }),
      () => viommu.createEventQueue({ type: MOCK_EVENTS, depth: 1 }),
      () => viommu.createHardwareQueue({ type: QUEUE, index: 0, iova: IOVA, length: PAGE }),
      () => viommu.invalidate({ type: 1, entries: [] }),
      () => iommu.createPageTable(device, { parent: viommu, pageTable: MOCK_TABLE }),
    ])
      expect(use).toThrow(`EBADF: virtual IOMMU ${viommu.id} is closed`);
    expect(() => events.drain()).toThrow(`EBADF: event queue ${events.id} is closed`);
  });

  test('what cannot be is refused', () => {
    const { iommu, device, space, parent } = openNesting();
    const flat = iommu.createPageTable(device, { parent: space });
    const make = (options: object) => () => iommu.createVirtualIommu(device, options as never);
    expect(errorOf(make({ parent: flat, type: MOCK_VIOMMU }))).toMatchObject({
      code: 'EINVAL',
      request: 'IOMMU_VIOMMU_ALLOC',
    });
    for (const type of ['arm-smmuv3', 'tegra241-cmdqv', 77])
      expect(errorOf(make({ parent, type }))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(make({ parent, type: 'intel' })).toThrow(TypeError);
    expect(make({ parent: space, type: MOCK_VIOMMU })).toThrow(TypeError);
    const stranger = openMock();
    expect(() => stranger.createVirtualIommu(device, { parent, type: MOCK_VIOMMU })).toThrow(TypeError);
    const theirs = stranger.createMockDevice({ cookie: 1 });
    expect(() => stranger.createVirtualIommu(theirs, { parent, type: MOCK_VIOMMU })).toThrow(
      'belongs to another Iommu',
    );
  });
});

describe('event queue', () => {
  const trigger = (device: MockDevice, times: number) => {
    for (let i = 0; i < times; i++) device.triggerVirtualEvent();
  };
  const summary = (queue: EventQueue) =>
    queue.drain().map(({ type, sequence, lost, data }) => [type, sequence, lost, data.length]);

  test('has events in order, with their records', async () => {
    const { device, viommu } = setUp();
    const queue = viommu.createEventQueue({ type: MOCK_EVENTS, depth: 8 });
    expect(queue.drain()).toEqual([]);
    trigger(device, 2);
    const first = await queue.next();
    expect(first).toMatchObject({ type: 'raw', sequence: 0, lost: 0 });
    expect(virtIdOf(first.data)).toBe(0x99);
    for await (const event of queue) {
      expect(event.sequence).toBe(1);
      break;
    }
    expect(queue.closed).toBe(false);
  });

  test('waits as long as it is told, and wakes up', async () => {
    const { device, viommu } = setUp();
    const queue = viommu.createEventQueue({ type: MOCK_EVENTS, depth: 8 });
    await expect(queue.next({ timeout: 5 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const abort = new AbortController();
    const aborted = queue.next({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    const waiting = queue.next();
    await sleep(5);
    trigger(device, 1);
    expect((await waiting).sequence).toBe(0);
    const last = queue.next();
    await sleep(1);
    queue.close();
    await expect(last).rejects.toMatchObject({ code: 'EBADF' });
  });

  test('says what was lost: the newest, or those between two', () => {
    const { device, viommu } = setUp();
    const queue = viommu.createEventQueue({ type: MOCK_EVENTS, depth: 2 });
    trigger(device, 5);
    expect(summary(queue)).toEqual([
      ['raw', 0, 0, 4],
      ['raw', 1, 0, 4],
      ['lost', 4, 3, 0],
    ]);
    trigger(device, 4);
    expect(summary(queue)).toEqual([
      ['raw', 5, 0, 4],
      ['raw', 6, 0, 4],
      ['lost', 8, 2, 0],
    ]);
    trigger(device, 1);
    expect(summary(queue)).toEqual([['raw', 9, 0, 4]]);
  });

  test('many are read in one go', () => {
    const { device, viommu } = setUp();
    const queue = viommu.createEventQueue({ type: MOCK_EVENTS, depth: 1000 });
    trigger(device, 500);
    expect(queue.drain().map(({ sequence }) => sequence)).toEqual(Array.from({ length: 500 }, (_, i) => i));
  });

  test('there is one of a type, of a depth the kernel takes', () => {
    const { viommu } = setUp();
    const make = (options: object) => () => viommu.createEventQueue(options as never);
    const queue = make({ type: MOCK_EVENTS, depth: 1 })();
    expect(errorOf(make({ type: MOCK_EVENTS, depth: 1 }))).toMatchObject({
      code: 'EEXIST',
      request: 'IOMMU_VEVENTQ_ALLOC',
    });
    queue.close();
    queue.close();
    make({ type: MOCK_EVENTS, depth: 2 ** 19 })().close();
    for (const depth of [0, 2 ** 19 + 1])
      expect(errorOf(make({ type: MOCK_EVENTS, depth }))).toMatchObject({ code: 'EINVAL' });
    expect(make({ type: MOCK_EVENTS, depth: -1 })).toThrow(RangeError);
    for (const type of ['mock', 5, undefined, { id: 5 }, { id: 5, recordSize: -1 }])
      expect(make({ type, depth: 1 })).toThrow(TypeError);
  });
});

describe('hardware queue', () => {
  test('pins its memory: unmapping is refused before anything is unmapped', () => {
    const { iommu, space, viommu } = setUp();
    const mappings = [0, 1, 2].map((i) =>
      space.map(iommu.allocateDma(PAGE), { iova: IOVA + BigInt(i * PAGE) }),
    );
    const queue = viommu.createHardwareQueue({
      type: QUEUE,
      index: 0,
      iova: mappings[1].iova,
      length: PAGE,
    });
    expect(queue).toMatchObject({ index: 0, iova: mappings[1].iova, length: BigInt(PAGE) });
    for (const unmap of [
      () => space.unmap(IOVA, 3 * PAGE),
      () => space.unmapAll(),
      () => mappings[1].unmap(),
      () => mappings[1].buffer.close(),
    ])
      expect(errorOf(unmap)).toMatchObject({
        code: 'EBUSY',
        request: 'IOMMU_IOAS_UNMAP',
        hint: 'close the queue first; nothing was unmapped',
      });
    expect(mappings.map(({ mapped }) => mapped)).toEqual([true, true, true]);
    expect(space.unmap(IOVA, PAGE)).toBe(PAGE);
    queue.close();
    expect(space.unmapAll()).toBe(2 * PAGE);
  });

  test('is made in order, on memory that is mapped', () => {
    const { iommu, space, viommu } = setUp();
    space.map(iommu.allocateDma(PAGE), { iova: IOVA });
    const make = (index: number, iova = IOVA, type: number = QUEUE) =>
      viommu.createHardwareQueue({ type, index, iova, length: PAGE });
    expect(errorOf(() => make(1))).toMatchObject({ code: 'EIO', request: 'IOMMU_HW_QUEUE_ALLOC' });
    expect(errorOf(() => make(0, IOVA + BigInt(PAGE)))).toMatchObject({ code: 'ENOENT' });
    expect(errorOf(() => make(0, IOVA, 5))).toMatchObject({ code: 'EOPNOTSUPP' });
    make(0);
    expect(errorOf(() => make(0))).toMatchObject({ code: 'EEXIST' });
    make(1);
    viommu.close();
    expect(space.unmapAll()).toBe(PAGE);
  });
});

function virtIdOf(record: Uint8Array): number {
  return uapi.iommu_viommu_event_selftest.decode(record).virt_id;
}
