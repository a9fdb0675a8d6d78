/** Page faults from the device's request to its response: groups, cookies, and what detaching answers. */
import { PRG_INVALID, PRG_SUCCESS } from '../../../lib/sim/bus';
import { POLLIN, POLLOUT, POLLRDNORM } from '../../../lib/kernel';
import * as uapi from '../../../lib/uapi';
import { Bench, code } from './bench';

const FAULT = uapi.IOMMU_HWPT_FAULT_ID_VALID;
const RECORD = uapi.iommu_hwpt_pgfault.size;

let bench: Bench;
let ioas: number;
let queue: { id: number; fd: number };
let hwpt: number;

beforeEach(() => {
  bench = new Bench();
  bench.bind();
  ioas = bench.ioas();
  const out = bench.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
  queue = { id: out.out_fault_id, fd: out.out_fault_fd };
  hwpt = bench.hwpt(ioas, { flags: FAULT, fault_id: queue.id });
  bench.attach(hwpt);
});

/** A page request of one page, delivered. */
function fault(group: number, iova = 0x1000): void {
  expect(bench.probe.page(iova, group)).toBe(true);
  bench.machine.idle();
}

function read(room = 8) {
  const bytes = new Uint8Array(room * RECORD);
  const result = bench.kernel.read(queue.fd, bytes);
  if (result < 0) return code(result);
  return Array.from({ length: result / RECORD }, (_, i) => uapi.iommu_hwpt_pgfault.decode(bytes, i * RECORD));
}

function respond(...responses: [cookie: number, code: number][]): string | number {
  const bytes = new Uint8Array(8 * responses.length);
  responses.forEach(([cookie, answer], i) =>
    bytes.set(uapi.iommu_hwpt_page_response.encode({ cookie, code: answer }), 8 * i),
  );
  const result = code(bench.kernel.write(queue.fd, bytes));
  bench.machine.idle();
  return result;
}

/** What the device was answered since, by group. */
const answers = () =>
  bench.probe.responses
    .splice(0)
    .map(({ group, code: answer }) => [group, answer])
    .sort(([a], [b]) => a - b);
const ready = () => bench.kernel.poll(queue.fd, 0x7fff);

test('a fault and its answer', () => {
  expect(ready()).toBe(POLLOUT);
  fault(7, 0x5000);
  expect(ready()).toBe(POLLOUT | POLLIN | POLLRDNORM);
  expect(read()).toEqual([
    {
      flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE,
      dev_id: bench.device,
      pasid: 0,
      grpid: 7,
      perm: uapi.IOMMU_PGFAULT_PERM_READ,
      __reserved: 0,
      addr: 0x5000n,
      length: 0,
      cookie: 1,
    },
  ]);
  expect(ready()).toBe(POLLOUT);
  expect(respond([1, 0])).toBe(8);
  expect(answers()).toEqual([[7, PRG_SUCCESS]]);
  expect(respond([1, 0])).toBe('EINVAL');
});

test('cookies are given at read, the lowest free one', () => {
  for (const group of [1, 2, 3]) fault(group);
  expect(respond([1, 0])).toBe('EINVAL');
  expect(read(2)).toMatchObject([
    { grpid: 1, cookie: 1 },
    { grpid: 2, cookie: 2 },
  ]);
  expect(respond([1, 1])).toBe(8);
  expect(read()).toMatchObject([{ grpid: 3, cookie: 1 }]);
  expect(respond([2, 0], [1, 0])).toBe(16);
  expect(answers()).toEqual([
    [1, PRG_INVALID],
    [2, PRG_SUCCESS],
    [3, PRG_SUCCESS],
  ]);
});

test('of many cookies those that were freed are given first, the lowest before', () => {
  for (let group = 0; group < 8; group++) fault(group);
  read(8);
  expect(respond([6, 0], [2, 0], [3, 0])).toBe(24);
  for (let group = 10; group < 14; group++) fault(group);
  expect(read()).toMatchObject([2, 3, 6, 9].map((cookie, i) => ({ grpid: 10 + i, cookie })));
  expect(respond([0, 0])).toBe('EINVAL');
  expect(respond([0xffff_ffff, 0])).toBe('EINVAL');
});

test('a wrong response ends the write', () => {
  fault(1);
  fault(2);
  read();
  expect(respond([1, 2])).toBe('EINVAL');
  expect(respond([1, 0], [9, 0], [2, 0])).toBe(8);
  expect(answers()).toEqual([[1, PRG_SUCCESS]]);
  expect(respond([2, 15])).toBe('EINVAL');
  expect(respond([2, 1])).toBe(8);
});

test('groups are read whole', () => {
  bench.probe.page(0x1000, 4, undefined, false);
  bench.machine.idle();
  expect(ready()).toBe(POLLOUT);
  expect(read()).toEqual([]);
  bench.probe.page(0x2000, 4, undefined, false);
  fault(5, 0x9000);
  fault(4, 0x3000);
  expect(read(1)).toMatchObject([{ grpid: 5, cookie: 1 }]);
  expect(read(1)).toBe('EINVAL');
  expect(read(0)).toBe('EINVAL');
  expect(read(3)).toMatchObject([
    { grpid: 4, addr: 0x1000n, cookie: 2, flags: 0 },
    { grpid: 4, addr: 0x2000n, cookie: 2, flags: 0 },
    { grpid: 4, addr: 0x3000n, cookie: 2, flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE },
  ]);
  expect(respond([2, 0])).toBe(8);
  expect(answers()).toEqual([[4, PRG_SUCCESS]]);
});

test('PASIDs', () => {
  const pasid = bench.hwpt(ioas, {
    flags: FAULT | uapi.IOMMU_HWPT_ALLOC_PASID,
    fault_id: queue.id,
  });
  bench.attach(pasid);
  bench.attach(pasid, 3);
  bench.probe.page(0x1000, 1, 3);
  bench.machine.idle();
  const flags = uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE | uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID;
  expect(read()).toMatchObject([{ pasid: 3, flags }]);
  bench.probe.page(0x1000, 2, 4);
  bench.machine.idle();
  expect(answers()).toEqual([[2, PRG_INVALID]]);
  respond([1, 0]);
  expect(bench.probe.responses).toEqual([{ pasid: 3, group: 1, code: PRG_SUCCESS }]);
});

test.each([
  ['detaching', () => bench.detach()],
  ['replacing', () => bench.attach(ioas)],
])('%s answers what was queued and what was read', (_name, end) => {
  fault(1);
  read();
  fault(2);
  end();
  bench.machine.idle();
  expect(answers()).toEqual([
    [1, PRG_INVALID],
    [2, PRG_INVALID],
  ]);
  expect(read()).toEqual([]);
  expect(respond([1, 0])).toBe('EINVAL');
});

test('closing the device empties the queue; the device, which is reset, waits for nothing', () => {
  fault(1);
  read();
  fault(2);
  bench.kernel.close(bench.vfio);
  bench.machine.idle();
  expect(answers()).toEqual([]);
  expect(read()).toEqual([]);
  expect(respond([1, 0])).toBe('EINVAL');
});

test('a replace that fails answers nothing', () => {
  fault(1);
  read();
  const bad = bench.ioas();
  bench.map(bad, 0x1000, 0x1000n);
  expect(() => bench.attach(bad)).toThrow('EFAULT');
  expect(answers()).toEqual([]);
  expect(respond([1, 0])).toBe(8);
});

test('closing the queue answers nothing until the HWPT goes', () => {
  fault(1);
  read();
  fault(2);
  bench.kernel.close(queue.fd);
  bench.machine.idle();
  expect(answers()).toEqual([]);
  expect(bench.result(uapi.IOMMU_DESTROY, { id: queue.id })).toBe('EBUSY');
  bench.detach();
  bench.machine.idle();
  expect(answers()).toEqual([
    [1, PRG_INVALID],
    [2, PRG_INVALID],
  ]);
  bench.call(uapi.IOMMU_DESTROY, { id: hwpt });
  bench.call(uapi.IOMMU_DESTROY, { id: queue.id });
});

test('nobody to ask is "invalid" at once', () => {
  bench.attach(bench.hwpt(ioas));
  fault(3);
  expect(answers()).toEqual([[3, PRG_INVALID]]);
});
