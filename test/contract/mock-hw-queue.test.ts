/** Hardware queues of virtual IOMMUs, by raw calls on the selftest IOMMU. */
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { APERTURE, useRawIommu, virtualIommu } from './mock';
import { PAGE } from './support';

const iommu = useRawIommu();
const U64_MAX = 2n ** 64n - 1n;
const READ = uapi.IOMMU_IOAS_MAP_READABLE;
const WRITE = uapi.IOMMU_IOAS_MAP_WRITEABLE;

type Fields = Parameters<typeof uapi.iommu_hw_queue_alloc.encode>[0];

/** A virtual IOMMU, and memory for queues at APERTURE: pages 0 and 1, then page 3. */
function setUp(flags?: number) {
  const world = virtualIommu(iommu());
  const { raw, ioas, viommu } = world;
  const memory = raw.memory(8 * PAGE);
  const map = (page: number, at: number, pages = 1) =>
    expect(raw.map(ioas, memory.address + BigInt(page * PAGE), pages * PAGE, iova(at), flags)).toBe(iova(at));
  map(0, 0, 2);
  map(3, 2);
  /** The queue's id, or the error. */
  const queue = (fields: Fields = {}): number => {
    const { result, out } = raw.call(uapi.IOMMU_HW_QUEUE_ALLOC, {
      viommu_id: viommu,
      type: uapi.IOMMU_HW_QUEUE_TYPE_SELFTEST,
      nesting_parent_iova: APERTURE,
      length: PAGE,
      ...fields,
    });
    return result || out.out_hw_queue_id;
  };
  return { ...world, memory, map, queue };
}

/** The IOVA of a page from APERTURE on. */
function iova(page: number): bigint {
  return APERTURE + BigInt(page * PAGE);
}

describe('HW_QUEUE_ALLOC', () => {
  test('checks what it is told before it looks anything up', () => {
    const { queue, device, viommu } = setUp();
    expect(queue({ flags: 1, viommu_id: 99 })).toBe(-errno.EOPNOTSUPP);
    expect(queue({ type: uapi.IOMMU_HW_QUEUE_TYPE_DEFAULT, viommu_id: 99 })).toBe(-errno.EOPNOTSUPP);
    expect(queue({ length: 0, viommu_id: 99 })).toBe(-errno.EINVAL);
    expect(queue({ length: U64_MAX, viommu_id: 99 })).toBe(-errno.EOVERFLOW);
    expect(queue({ viommu_id: device })).toBe(-errno.ENOENT);
    expect(queue({ type: uapi.IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV })).toBe(-errno.EOPNOTSUPP);
    expect(queue()).toBe(viommu + 1);
  });

  test('wants memory that is mapped and readable', () => {
    const { queue, raw, ioas, memory, viommu } = setUp();
    expect(queue({ nesting_parent_iova: iova(3) })).toBe(-errno.ENOENT);
    expect(queue({ nesting_parent_iova: 0n })).toBe(-errno.ENOENT);
    expect(queue({ nesting_parent_iova: iova(2) + 1n })).toBe(-errno.ENOENT);
    raw.map(ioas, memory.address, PAGE, iova(4), WRITE);
    expect(queue({ nesting_parent_iova: iova(4) })).toBe(-errno.EPERM);
    raw.map(ioas, memory.address, PAGE, iova(5), READ);
    expect(queue({ nesting_parent_iova: iova(5) })).toBe(viommu + 1);
  });

  test('has limits', () => {
    const { queue } = setUp();
    const far = { nesting_parent_iova: iova(3) };
    expect(queue({ ...far, length: 2 ** 33 })).toBe(-errno.ENOENT);
    expect(queue({ ...far, length: 2 ** 40 - PAGE + 1 })).toBe(-errno.ENOMEM);
    expect(queue({ nesting_parent_iova: 1n, length: U64_MAX - 4095n })).toBe(-errno.ERANGE);
    expect(queue({ nesting_parent_iova: 0n, length: U64_MAX - 4095n })).toBe(-errno.ENOMEM);
    expect(queue({ nesting_parent_iova: 0n, length: U64_MAX })).toBe(-errno.ERANGE);
  });

  test('wants one piece of physical memory', () => {
    const { raw, ioas, queue } = setUp();
    // Inside one huge page, pages follow each other; that order was turned around here.
    const huge = 2 * 2 ** 20;
    const kernelMemory = raw.kernel.allocate(huge, { hugePages: true });
    const memory = typeof kernelMemory === 'number' ? undefined : kernelMemory;
    const address = memory?.address ?? raw.memory(huge).address;
    raw.map(ioas, address, 2 * PAGE, iova(8));
    raw.map(ioas, address + BigInt(2 * PAGE), PAGE, iova(10));
    raw.map(ioas, address + BigInt(PAGE), PAGE, iova(11));
    const fields = { nesting_parent_iova: iova(8) };
    expect(queue({ ...fields, length: 4 * PAGE })).toBe(-errno.EFAULT);
    expect(queue({ ...fields, length: 3 * PAGE + 1 })).toBe(-errno.EFAULT);
    expect(queue({ nesting_parent_iova: iova(11), length: PAGE })).toBeGreaterThan(0);
    // Small pages may lie anywhere.
    if (memory) expect(queue({ ...fields, index: 1, length: 3 * PAGE })).toBeGreaterThan(0);
    memory?.free();
  });

  test('makes the first queue first, and each once', () => {
    const { queue } = setUp();
    expect(queue({ index: 1 })).toBe(-errno.EIO);
    expect(queue({ index: 2 })).toBe(-errno.EINVAL);
    expect(queue({ index: 2 ** 32 - 1, nesting_parent_iova: 0n })).toBe(-errno.ENOENT);
    expect(queue()).toBeGreaterThan(0);
    expect(queue()).toBe(-errno.EEXIST);
    expect(queue({ index: 1 })).toBeGreaterThan(0);
    expect(queue({ index: 1 })).toBe(-errno.EEXIST);
    expect(queue({ index: 2 })).toBe(-errno.EINVAL);
  });
});

describe('a hardware queue', () => {
  test('takes two ids, and the second is nobody’s', () => {
    const { queue, raw, viommu } = setUp();
    const id = queue();
    expect(id).toBe(viommu + 1);
    expect(raw.destroy(id + 1)).toBe(-errno.EBUSY);
    expect(raw.ioas()).toBe(id + 2);
    expect(raw.destroy(id)).toBe(0);
    expect(raw.destroy(id + 1)).toBe(-errno.ENOENT);
    for (const fields of [{ index: 1 }, { nesting_parent_iova: iova(3) }, { nesting_parent_iova: 0n }])
      expect(queue(fields)).toBeLessThan(0);
    expect([raw.ioas(), raw.ioas(), raw.ioas()]).toEqual([id, id + 1, id + 3]);
    expect(queue()).toBe(id + 4);
  });

  test('keeps its virtual IOMMU, and the queue before it', () => {
    const { queue, raw, parent, viommu, ioas } = setUp();
    const [first, second] = [queue(), queue({ index: 1 })];
    for (const id of [viommu, parent, ioas, first]) expect(raw.destroy(id)).toBe(-errno.EBUSY);
    expect(raw.destroy(second)).toBe(0);
    expect(raw.destroy(first)).toBe(0);
    expect(raw.destroy(viommu)).toBe(0);
  });

  test('that goes makes room for a first one, whichever it was', () => {
    const { queue, raw } = setUp();
    const [first, second] = [queue(), queue({ index: 1 })];
    expect(raw.destroy(second)).toBe(0);
    // A mistake of the mock driver of Linux 7.3.
    expect(queue({ index: 1 })).toBe(-errno.EEXIST);
    expect(queue()).toBe(second);
    expect(queue()).toBe(-errno.EEXIST);
    expect(raw.destroy(first)).toBe(0);
    expect(queue()).toBe(first);
  });

  test('keeps its memory mapped', () => {
    const { queue, raw, ioas, map } = setUp();
    map(4, 3);
    const id = queue({ nesting_parent_iova: iova(2), length: 1 });
    expect(raw.unmap(ioas, iova(2), PAGE)).toBe(-errno.EBUSY);
    // Before it is seen that the range cuts the mapping.
    expect(raw.unmap(ioas, iova(2), 1)).toBe(-errno.EBUSY);
    const { result, out } = raw.call(uapi.IOMMU_IOAS_UNMAP, { ioas_id: ioas, iova: 0n, length: U64_MAX });
    expect([result, out.length]).toEqual([-errno.EBUSY, U64_MAX]);
    // What was before it is gone, what is behind it is not.
    expect(raw.unmap(ioas, iova(0), 2 * PAGE)).toBe(-errno.ENOENT);
    expect(raw.unmap(ioas, iova(3), PAGE)).toBe(0);
    expect(raw.destroy(id)).toBe(0);
    expect(raw.unmap(ioas, iova(2), PAGE)).toBe(0);
  });

  test('makes mappings page-aligned', () => {
    const { queue, raw, ioas, memory } = setUp();
    expect(raw.map(ioas, memory.address, 2048, iova(8))).toBe(iova(8));
    expect(queue()).toBe(-errno.EADDRINUSE);
    expect(raw.unmap(ioas, iova(8), 2048)).toBe(0);
    const id = queue();
    expect(raw.map(ioas, memory.address, 2048, iova(8))).toBe(-errno.EINVAL);
    expect(raw.destroy(id)).toBe(0);
    expect(raw.map(ioas, memory.address, 2048, iova(8))).toBe(iova(8));
  });

  test('goes with the iommufd', () => {
    const { queue, raw, memory } = setUp();
    queue();
    queue({ index: 1, nesting_parent_iova: iova(2) });
    expect(raw.checkRefs(memory.address, PAGE, 1)).toBe(0);
    expect(raw.drop(raw.fd)).toBe(0);
    // Asked of another.
    const other = raw.open();
    const bytes = uapi.iommu_test_cmd.encode({
      size: uapi.iommu_test_cmd.size,
      op: uapi.IOMMU_TEST_OP_MD_CHECK_REFS,
      check_refs: { length: 8 * PAGE, uptr: memory.address, refs: 0 },
    });
    expect(raw.kernel.ioctl(other, uapi.IOMMU_TEST_CMD.request, bytes)).toBe(0);
  });
});
