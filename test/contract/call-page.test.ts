/** The call page of the seam: the same on both backends. */
import { CALL_PAGE_BYTES, CALL_STRUCTS_AT, MOST_CALLS, O_RDWR } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { kernel } from './support';

const raw = kernel();
const page = raw.callPage();
const bytes = new Uint8Array(page.buffer);
const view = new DataView(page.buffer);
const ALLOC = uapi.IOMMU_IOAS_ALLOC;
const DESTROY = uapi.IOMMU_DESTROY;
const NO_FD = 0x7fffffff;
/** A RangeError: the addon's is of another realm than a test's. */
const OUTSIDE = 'offset must be that of a struct within the call page';
let fd: number;

beforeEach(() => {
  fd = raw.open('/dev/iommu', O_RDWR);
  bytes.fill(0, CALL_STRUCTS_AT);
});
afterEach(() => raw.close(fd));

/** Place of struct `index`, of 64 bytes. */
const at = (index: number) => CALL_STRUCTS_AT + 64 * index;

function write<S extends uapi.Struct>(index: number, struct: S, values: Parameters<S['encode']>[0]): number {
  bytes.set(struct.encode({ size: struct.size, ...values }), at(index));
  return at(index);
}

const allocated = (index: number) => uapi.iommu_ioas_alloc.decode(bytes, at(index)).out_ioas_id;

describe('a call', () => {
  test('takes its struct from the page, and leaves there what came back', () => {
    expect(raw.callPage()).toBe(page);
    expect(page.address).toBe(raw.addressOf(bytes));
    expect(page.ioctl(fd, ALLOC.request, write(0, ALLOC.struct, {}))).toBe(0);
    expect(allocated(0)).toBe(1);
    expect(page.ioctl(fd, DESTROY.request, write(1, DESTROY.struct, { id: 1 }))).toBe(0);
    expect(page.ioctl(fd, DESTROY.request, at(1))).toBe(-errno.ENOENT);
    expect(page.ioctl(NO_FD, DESTROY.request, at(1))).toBe(-errno.EBADF);
    expect(page.ioctl(-1, DESTROY.request, at(1))).toBe(-errno.EBADF);
    expect(page.ioctl(fd, uapi.requestNumber('x', 0x80), at(1))).toBe(-errno.ENOTTY);
  });

  test('reaches memory, the page itself too', () => {
    const ioasId = (page.ioctl(fd, ALLOC.request, write(0, ALLOC.struct, {})), allocated(0));
    const ranges = { ioas_id: ioasId, num_iovas: 1, allowed_iovas: page.address + BigInt(at(2)) };
    const { request, struct } = uapi.IOMMU_IOAS_IOVA_RANGES;
    expect(page.ioctl(fd, request, write(1, struct, ranges))).toBe(0);
    expect(uapi.iommu_iova_range.decode(bytes, at(2))).toEqual({ start: 0n, last: 2n ** 64n - 1n });
  });

  test('has its struct within the page, as far as the kernel may write', () => {
    const end = CALL_PAGE_BYTES;
    const call = (offset: number, request = ALLOC.request) => page.ioctl(fd, request, offset);
    view.setUint32(end - 12, 12, true);
    expect(call(end - 12)).toBe(0);
    view.setUint32(end - 12, 13, true);
    expect(() => call(end - 12)).toThrow(OUTSIDE);
    view.setUint32(end - 4, 0xffffffff, true);
    for (const offset of [end - 4, end - 3, end, 0xffffffff, 0, CALL_STRUCTS_AT - 8])
      expect(() => call(offset)).toThrow(OUTSIDE);
    // FS_IOC_GETFLAGS has its size, 8, in the request.
    expect(() => call(end - 4, 0x80086601)).toThrow(OUTSIDE);
    expect(call(end - 8, 0x80086601)).toBe(-errno.ENOTTY);
  });

  test.each([NaN, Infinity, 0.5, 2 ** 32, -(2 ** 31) - 1])('takes no %d for an integer', (value) => {
    write(0, ALLOC.struct, {});
    for (const call of [
      () => page.ioctl(value, ALLOC.request, at(0)),
      () => page.ioctl(fd, value, at(0)),
      () => page.ioctl(fd, ALLOC.request, value),
      () => page.describe(value, fd, ALLOC.request, at(0)),
      () => page.describe(0, value, ALLOC.request, at(0)),
      () => page.describe(0, fd, value, at(0)),
      () => page.describe(0, fd, ALLOC.request, value),
      () => page.run(value),
      () => page.result(value),
    ])
      expect(call).toThrow(RangeError);
    expect(page.ioctl(fd, ALLOC.request, at(0))).toBe(0);
    expect(allocated(0)).toBe(1);
  });
});

describe('a batch', () => {
  test('is made in order, until a call fails', () => {
    for (let i = 0; i < 3; i++) page.describe(i, fd, ALLOC.request, write(i, ALLOC.struct, {}));
    expect(page.run(3)).toBe(3);
    expect([0, 1, 2].map((i) => [page.result(i), allocated(i)])).toEqual([
      [0, 1],
      [0, 2],
      [0, 3],
    ]);
    for (const [i, id] of [3, 9, 1].entries())
      page.describe(i, fd, DESTROY.request, write(i, DESTROY.struct, { id }));
    expect(page.run(3)).toBe(1);
    expect([page.result(0), page.result(1)]).toEqual([0, -errno.ENOENT]);
    // The third was not made: 1 and 2 are there.
    expect(page.run(0)).toBe(0);
    expect(page.ioctl(fd, DESTROY.request, write(0, DESTROY.struct, { id: 1 }))).toBe(0);
    expect(page.ioctl(fd, DESTROY.request, write(0, DESTROY.struct, { id: 3 }))).toBe(-errno.ENOENT);
  });

  test('is checked before any of it is made', () => {
    page.describe(0, fd, ALLOC.request, write(0, ALLOC.struct, {}));
    page.describe(1, fd, ALLOC.request, CALL_PAGE_BYTES);
    expect(() => page.run(2)).toThrow(OUTSIDE);
    expect(page.ioctl(fd, ALLOC.request, at(0))).toBe(0);
    expect(allocated(0)).toBe(1);
  });

  test('sees what a call before it has written', () => {
    // The ranges of an IOAS are written over the struct of the next call, whose size is 0 then.
    expect(page.ioctl(fd, ALLOC.request, write(0, ALLOC.struct, {}))).toBe(0);
    const { request, struct } = uapi.IOMMU_IOAS_IOVA_RANGES;
    const values = { ioas_id: allocated(0), num_iovas: 1, allowed_iovas: page.address + BigInt(at(2) - 8) };
    page.describe(0, fd, request, write(1, struct, values));
    page.describe(1, fd, ALLOC.request, write(2, ALLOC.struct, {}));
    expect(page.run(2)).toBe(1);
    // 2^64 - 1 is the last IOVA: a size of 2^32 - 1.
    expect(page.result(1)).toBe(-errno.EFAULT);
  });

  test('has room for so many calls', () => {
    for (let i = 0; i < MOST_CALLS; i++) page.describe(i, fd, ALLOC.request, CALL_STRUCTS_AT + 40 * i);
    for (let i = 0; i < MOST_CALLS; i++)
      bytes.set(ALLOC.struct.encode({ size: 12 }), CALL_STRUCTS_AT + 40 * i);
    expect(page.run(MOST_CALLS)).toBe(MOST_CALLS);
    expect(uapi.iommu_ioas_alloc.decode(bytes, CALL_STRUCTS_AT + 40 * (MOST_CALLS - 1)).out_ioas_id).toBe(
      MOST_CALLS,
    );
    expect(() => page.describe(MOST_CALLS, fd, ALLOC.request, at(0))).toThrow(RangeError);
    expect(() => page.run(MOST_CALLS + 1)).toThrow(RangeError);
  });
});
