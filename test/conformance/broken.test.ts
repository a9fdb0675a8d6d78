/** A simulator in which one rule is wrong is found, by the fixed suite or by random sequences. */
import {
  errno,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
} from '../../lib/uapi';
import { compareWith, type Alteration } from './peers';

/** Changes the result of one ioctl. */
function result(request: number, change: (value: number) => number): Alteration {
  return (inner) => ({
    ioctl: (fd, number, argument) => {
      const value = inner.ioctl(fd, number, argument);
      return number === request ? change(value) : value;
    },
  });
}

describe('a kernel that', () => {
  test('is the same does not differ', async () => {
    const comparison = await compareWith(() => ({}), { sequences: 400, suite: true });
    expect(comparison.differences).toBe(0);
    expect(comparison.counts.calls).toBeGreaterThan(5000);
  });

  test('says EINVAL for EOVERFLOW in MAP is caught by the suite', async () => {
    const wrong = result(IOMMU_IOAS_MAP.request, (value) =>
      value === -errno.EOVERFLOW ? -errno.EINVAL : value,
    );
    const comparison = await compareWith(wrong, { suite: true });
    const found = comparison.found.get('IOMMU_IOAS_MAP: simulated EOVERFLOW, Linux EINVAL');
    expect(found?.times).toBeGreaterThan(0);
    expect(comparison.counts.byIoctl['IOMMU_IOAS_MAP'].differences).toBe(comparison.differences);
    // Nothing but an iommufd and the one call is needed to show it.
    expect(found?.sequence.calls.length).toBeLessThanOrEqual(3);
  });

  test('says ENOENT for nothing unmapped is caught by random sequences', async () => {
    const wrong = result(IOMMU_IOAS_UNMAP.request, (value) => (value === -errno.ENOENT ? 0 : value));
    const comparison = await compareWith(wrong, { sequences: 300 });
    const found = comparison.found.get('IOMMU_IOAS_UNMAP: simulated ENOENT, Linux 0');
    expect(found?.sequence.calls.map((call) => call.op)).toEqual(['open', 'ioctl']);
  });

  test('writes a wrong byte is caught, and the field is named', async () => {
    const comparison = await compareWith(
      (inner) => ({
        ioctl(fd, request, argument) {
          const value = inner.ioctl(fd, request, argument);
          if (request === IOMMU_IOAS_IOVA_RANGES.request && value === 0)
            poke(inner, Number(argument) + 31, 1);
          return value;
        },
      }),
      { sequences: 300 },
    );
    expect([...comparison.found.keys()]).toEqual(['IOMMU_IOAS_IOVA_RANGES (0): bytes of out_iova_alignment']);
  });

  test('gives other ids is caught', async () => {
    const comparison = await compareWith(
      (inner) => ({
        ioctl(fd, request, argument) {
          // One id is lost whenever an address space is made.
          if (request === IOMMU_IOAS_ALLOC.request) inner.ioctl(fd, request, argument);
          return inner.ioctl(fd, request, argument);
        },
      }),
      { sequences: 50 },
    );
    expect([...comparison.found.keys()]).toContain('IOMMU_IOAS_ALLOC (0): bytes of out_ioas_id');
  });

  test('has nothing to read and says so with an error is caught', async () => {
    const comparison = await compareWith(
      (inner) => ({ read: (fd, bytes) => inner.read(fd, bytes) || -errno.EAGAIN }),
      { sequences: 1000 },
    );
    expect([...comparison.found.keys()]).toContain('read: simulated 0, Linux EAGAIN');
  });

  test('answers differently after a call it should forget is caught', async () => {
    let calls = 0;
    const comparison = await compareWith(
      result(IOMMU_IOAS_ALLOC.request, (value) => (++calls % 100 === 99 ? -errno.ENOMEM : value)),
      { sequences: 300 },
    );
    expect(comparison.differences + comparison.unsteady).toBeGreaterThan(0);
  });
});

describe('what is no difference', () => {
  test('other descriptors and addresses', async () => {
    const comparison = await compareWith(
      (inner) => {
        for (let i = 0; i < 7; i++) inner.eventfd(0, 0);
        inner.allocate(12345);
        return {};
      },
      { sequences: 400, suite: true },
    );
    expect(comparison.differences).toBe(0);
  });
});

/** Changes a byte of the program's memory, as the kernel does. */
function poke(inner: Parameters<Alteration>[0], address: number, value: number): void {
  const { memory } = inner as unknown as { memory: { write(address: bigint, bytes: Uint8Array): boolean } };
  expect(memory.write(BigInt(address), Uint8Array.of(value))).toBe(true);
}
