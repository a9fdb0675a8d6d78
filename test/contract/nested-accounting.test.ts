/** The dummy identity root of the RFC (section 1.1): a page is pinned and accounted once, however many spaces reach it. */
import type { AddressSpace, DmaBuffer, Iommu } from '../../lib';
import { IOVA, openMock } from './mock-objects';
import { PAGE } from './support';

/** Pages pinned since `before` was taken. */
function pinnedSince(iommu: Iommu): () => number {
  const before = iommu.lockedMemory().pinned;
  return () => (iommu.lockedMemory().pinned - before) / PAGE;
}

/** A space on the identity root with a device of its own. */
function spaceOn(iommu: Iommu, root: AddressSpace, cookie: number) {
  const space = iommu.createAddressSpace({ parent: root });
  const device = iommu.createMockDevice({ cookie });
  device.attach(space);
  return { space, device };
}

/** Addresses of this process, mapped to themselves. */
function identityRoot(iommu: Iommu, buffer: DmaBuffer): AddressSpace {
  const root = iommu.createAddressSpace();
  root.map(buffer, { iova: buffer.address });
  return root;
}

describe('memory in several spaces', () => {
  test('is counted once where an identity root is their parent', () => {
    const iommu = openMock();
    const pages = pinnedSince(iommu);
    const buffer = iommu.allocateDma(4 * PAGE);
    const root = identityRoot(iommu, buffer);
    // Nobody can reach it yet.
    expect(pages()).toBe(0);
    const [one, two] = [spaceOn(iommu, root, 1), spaceOn(iommu, root, 2)];
    one.space.map({ iova: buffer.address, length: 4 * PAGE }, { iova: IOVA });
    expect(pages()).toBe(4);
    const half = { iova: buffer.address + BigInt(2 * PAGE), length: 2 * PAGE };
    two.space.map(half, { iova: IOVA + 0x10_0000n });
    expect(pages()).toBe(4);
    expect(two.device.translates(IOVA + 0x10_0000n, buffer, { offset: 2 * PAGE })).toBe(true);
    one.space.close();
    expect(pages()).toBe(2);
    root.unmapAll();
    expect(pages()).toBe(0);
  });

  test('is counted each time where each space maps it itself', () => {
    const iommu = openMock();
    const pages = pinnedSince(iommu);
    const buffer = iommu.allocateDma(4 * PAGE);
    for (const cookie of [1, 2]) {
      const space = iommu.createAddressSpace();
      iommu.createMockDevice({ cookie }).attach(space);
      space.map(buffer, { iova: IOVA });
      expect(pages()).toBe(4 * cookie);
    }
    iommu.close();
    expect(() => iommu.lockedMemory()).toThrow('EBADF');
  });
});
