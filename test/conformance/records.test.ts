/** What the executor says of calls, and what it leaves behind. */
import { errno } from '../../lib/uapi';
import { firstDifference } from '../../scripts/conformance/difference';
import { Executor } from '../../scripts/conformance/executor';
import { masked } from '../../scripts/conformance/known-differences';
import { REFUSED, type Call, type IoctlCall, type Sequence } from '../../scripts/conformance/program';
import { openSimulated } from '../../scripts/conformance/simulated';

const { kernel, settle } = openSimulated();
const executor = new Executor(kernel, settle);
afterAll(() => executor.close());

const open: Call = { label: 0, op: 'open', path: '/dev/iommu' };

function ioctl(
  label: number,
  request: string,
  fields: IoctlCall['fields'],
  more: Partial<IoctlCall> = {},
): Call {
  return { label, op: 'ioctl', fd: 0, request, fields, ...more };
}

function sequence(...calls: Call[]): Sequence {
  return { name: 'test', calls };
}

test('results, changed bytes and descriptors in the order they came', () => {
  const records = executor.run(
    sequence(open, ioctl(1, 'IOMMU_IOAS_ALLOC', {}), ioctl(2, 'IOMMU_FAULT_QUEUE_ALLOC', {}), {
      ...open,
      label: 3,
    }),
  );
  expect(records).toEqual([
    { result: 0, changes: [] },
    { result: 0, changes: [{ area: 'argument', offset: 8, bytes: '01' }] },
    {
      result: 0,
      changes: [
        { area: 'argument', offset: 8, bytes: '02' },
        { area: 'argument', offset: 12, bytes: '01' },
      ],
    },
    { result: 2, changes: [] },
  ]);
});

test('a field refers to what an earlier call gave; to nothing where it failed', () => {
  const ioas_id = { of: 1, field: 'out_ioas_id' };
  const destroy = (label: number) => ioctl(label, 'IOMMU_DESTROY', { id: ioas_id });
  const results = (...calls: Call[]) => executor.run(sequence(...calls)).map(({ result }) => result);
  expect(results(open, ioctl(1, 'IOMMU_IOAS_ALLOC', {}), destroy(2), destroy(3))).toEqual([
    0,
    0,
    0,
    -errno.ENOENT,
  ]);
  expect(results(open, destroy(2))).toEqual([0, -errno.ENOENT]);
});

test('whatever a sequence opens is closed after it', () => {
  const eventfds = Array.from({ length: 20 }, (_, i): Call => ({ label: i + 1, op: 'eventfd', initial: 0 }));
  const before = kernel.eventfd(0, 0);
  kernel.close(before);
  for (let i = 0; i < 100; i++)
    executor.run(sequence(open, ...eventfds, ioctl(30, 'IOMMU_FAULT_QUEUE_ALLOC', {})));
  const after = kernel.eventfd(0, 0);
  kernel.close(after);
  expect(after).toBe(before);
});

test('the hash says what the records say', () => {
  const good = sequence(open, ioctl(1, 'IOMMU_IOAS_ALLOC', {}));
  const other = sequence(open, ioctl(1, 'IOMMU_IOAS_ALLOC', { flags: 1 }));
  expect(executor.hash(good)).toBe(executor.hash(good));
  expect(executor.hash(good)).not.toBe(executor.hash(other));
});

test('calls that would reach into the running program are not made', () => {
  const at = { at: 'scratch', offset: 0 } as const;
  const unsafe = [
    ioctl(1, 'IOMMU_GET_HW_INFO', { data_len: 0xffff_ffff, data_uptr: at }),
    ioctl(1, 'IOMMU_HWPT_GET_DIRTY_BITMAP', { length: '0xffffffffffffffff', page_size: 1, data: at }),
    ioctl(1, 'IOMMU_TEST_CMD', { op: 8, 'access_rw.length': 2 ** 30, 'access_rw.uptr': at }),
    // A number, not a descriptor: a file of the sequence's here, one of the runner's there.
    ioctl(1, 'IOMMU_TEST_CMD', { op: 7, id: 8 }),
    ioctl(1, 'IOMMU_TEST_CMD', { op: 11, id: { of: 1, field: 'out_ioas_id' } }),
    ioctl(1, 'IOMMU_IOAS_MAP', { length: 2 ** 20 + 1, user_va: at }),
    ioctl(1, 'VFIO_IOMMU_MAP_DMA', { size: 4096, vaddr: { at: 'memfd', offset: 2 ** 21 - 4095 } }),
  ];
  for (const call of unsafe) expect(executor.run(sequence(open, call))[1].result).toBe(REFUSED);
});

describe('differences', () => {
  const two = sequence(open, ioctl(1, 'IOMMU_IOAS_MAP', {}));
  const fine = { result: 0, changes: [] };

  test('none', () => {
    expect(firstDifference(two, [fine, fine], [fine, fine])).toBeUndefined();
  });

  test('the first counts: its results by name', () => {
    const left = [fine, { result: -errno.EOVERFLOW, changes: [] }];
    expect(firstDifference(two, left, [fine, fine])).toEqual({
      at: 1,
      name: 'IOMMU_IOAS_MAP',
      signature: 'IOMMU_IOAS_MAP: simulated EOVERFLOW, Linux 0',
    });
  });

  test('bytes, by the name of the field', () => {
    const changed = { result: 0, changes: [{ area: 'argument', offset: 33, bytes: '10' } as const] };
    expect(firstDifference(two, [fine, changed], [fine, fine])?.signature).toBe(
      'IOMMU_IOAS_MAP (0): bytes of iova',
    );
  });

  test('known ones are not compared: a field, or bytes behind a pointer', () => {
    const because = 'A test.';
    const call = { ...two.calls[1] } as IoctlCall;
    const field = [{ request: 'IOMMU_IOAS_MAP', field: 'iova', because }];
    expect([31, 32, 39, 40].map((at) => masked(call, 'argument', at, field))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    const info = ioctl(1, 'IOMMU_GET_HW_INFO', { data_uptr: { at: 'scratch', offset: 100 } }) as Call &
      IoctlCall;
    const pointee = [
      { request: 'IOMMU_GET_HW_INFO', field: 'data_uptr', pointee: { from: 8, to: 24 }, because },
    ];
    expect([107, 108, 123, 124].map((at) => masked(info, 'scratch', at, pointee))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(masked(call, 'scratch', 108, pointee)).toBe(false);
  });
});
