/** Memory in address spaces beyond plain map(): shared, by file, gone; and the options of IOMMU_OPTION. */
import { Iommu, type DmaBuffer, type IommuError } from '../../lib';
import type { Kernel, Memory } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { mockKernel } from './mock';
import { IOVA, lowestId, openMock } from './mock-objects';
import { errorOf, PAGE } from './support';

function setUp() {
  const iommu = openMock();
  const [source, target] = [iommu.createAddressSpace(), iommu.createAddressSpace()];
  const device = iommu.createMockDevice({ cookie: 1 });
  device.attach(target);
  return { iommu, source, target, device, buffer: iommu.allocateDma(4 * PAGE) };
}

describe('sharing a mapping of another space', () => {
  test('gives devices the same memory, or part of it', () => {
    const { source, target, device, buffer } = setUp();
    const mapping = source.map(buffer, { iova: IOVA, offset: PAGE, length: 3 * PAGE });
    const shared = target.map(mapping, { iova: IOVA + 0x10_0000n, offset: PAGE });
    expect(shared).toMatchObject({ offset: 2 * PAGE, length: 2 * PAGE, read: true, write: true });
    expect(shared.buffer === buffer && shared.space === target).toBe(true);
    expect(device.translates(shared.iova, buffer, { offset: 2 * PAGE, length: 2 * PAGE })).toBe(true);
    const anywhere = target.map(mapping);
    expect(device.translates(anywhere.iova, buffer, { offset: PAGE, length: 3 * PAGE })).toBe(true);
    mapping.unmap();
    expect(device.translates(shared.iova, buffer, { offset: 2 * PAGE, length: 2 * PAGE })).toBe(true);
    buffer.close();
    expect([shared.mapped, anywhere.mapped]).toEqual([false, false]);
    expect(target.mappings).toEqual([]);
  });

  test('allows no more than the memory it shares', () => {
    const { source, target, buffer } = setUp();
    const readOnly = source.map(buffer, { write: false });
    const shared = target.map(readOnly);
    expect(shared).toMatchObject({ read: true, write: false });
    expect(errorOf(() => target.map(readOnly, { write: true }))).toMatchObject({
      code: 'EPERM',
      request: 'IOMMU_IOAS_COPY',
      hint: 'the source is read-only: pass write: false',
    });
  });

  test('is refused where there is nothing to share', () => {
    const { iommu, source, target, buffer } = setUp();
    const mapping = source.map(buffer, { iova: IOVA });
    expect(() => target.map(mapping, { offset: 4 * PAGE, length: 1 })).toThrow(RangeError);
    target.map(mapping, { iova: IOVA });
    expect(errorOf(() => target.map(mapping, { iova: IOVA }))).toMatchObject({
      code: 'EEXIST',
      request: 'IOMMU_IOAS_COPY',
    });
    expect(errorOf(() => target.map(mapping, { iova: 0n }))).toMatchObject({
      code: 'EINVAL',
      hint: '0x0-0x3fff is not within what devices of this space reach: 0x1000000-0x7fffffff',
    });
    const stranger = openMock().createAddressSpace();
    expect(() => stranger.map(mapping)).toThrow('belongs to another Iommu');
    mapping.unmap();
    expect(errorOf(() => target.map(mapping))).toMatchObject({ code: 'ENOENT' });
    expect(iommu.closed).toBe(false);
  });
});

describe('memory with a memfd', () => {
  test('is mapped by its file: it can change hands', () => {
    const { iommu, target, device } = setUp();
    const buffer = iommu.allocateDma(4 * PAGE, { memfd: true });
    const whole = target.map(buffer, { iova: IOVA });
    const part = target.map(buffer, { offset: PAGE, length: PAGE });
    expect(device.translates(whole.iova, buffer)).toBe(true);
    expect(device.translates(part.iova, buffer, { offset: PAGE, length: PAGE })).toBe(true);
    iommu.changeProcess();
    expect(device.translates(whole.iova, buffer)).toBe(true);
    const plain = target.map(iommu.allocateDma(PAGE));
    const error = errorOf(() => iommu.changeProcess()) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL', request: 'IOMMU_IOAS_CHANGE_PROCESS' });
    expect(error.hint).toContain('memfd: true');
    plain.unmap();
    iommu.changeProcess();
    buffer.close();
    expect(target.mappings).toEqual([]);
  });

  test('refusals say why, by the name of the request', () => {
    const { iommu, target } = setUp();
    const buffer = iommu.allocateDma(PAGE, { memfd: true });
    expect(errorOf(() => target.map(buffer, { iova: IOVA + 1n }))).toMatchObject({
      code: 'EINVAL',
      request: 'IOMMU_IOAS_MAP_FILE',
      hint: 'the IOVA 0x1000001 must be a multiple of 2048 bytes',
    });
    target.map(buffer, { iova: IOVA });
    expect(errorOf(() => target.map(buffer, { iova: IOVA }))).toMatchObject({ code: 'EEXIST' });
  });
});

/** A kernel whose next buffer is at an address where nothing is. */
function losingMemory(): { kernel: Kernel; lose: () => void } {
  const inner = mockKernel();
  let losing = false;
  const gone: Memory = {
    bytes: new Uint8Array(PAGE),
    address: 0x7000n,
    length: PAGE,
    fd: -1,
    free: () => {},
  };
  const kernel = new Proxy(inner, {
    get(target, name) {
      if (name === 'allocate' && losing) return () => gone;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return { kernel, lose: () => (losing = true) };
}

describe('memory that is gone', () => {
  test('is noticed when the first device attaches; the hint names the mapping', () => {
    const { kernel, lose } = losingMemory();
    using iommu = Iommu.open({ backend: kernel });
    const device = iommu.createMockDevice({ cookie: 1 });
    const space = iommu.createAddressSpace();
    space.map(iommu.allocateDma(PAGE), { iova: IOVA });
    const there: DmaBuffer = iommu.allocateDma(PAGE);
    lose();
    const lost = space.map(iommu.allocateDma(PAGE), { iova: IOVA + BigInt(PAGE) });
    space.map(there, { iova: IOVA + BigInt(2 * PAGE) });
    const hint =
      'memory is pinned when the first device attaches, and that of the mapping at 0x1001000, 4096 bytes, is not there: unmap it';
    const before = lowestId(iommu);
    expect(errorOf(() => device.attach(space))).toMatchObject({ code: 'EFAULT', hint });
    expect(errorOf(() => iommu.createPageTable(device, { parent: space }))).toMatchObject({
      code: 'EFAULT',
      request: 'IOMMU_HWPT_ALLOC',
      hint,
    });
    expect(lowestId(iommu)).toBe(before);
    lost.unmap();
    device.attach(space);
  });

  test('mapped by a raw call, it has no name', () => {
    const { iommu, source, device } = setUp();
    const values = { size: 40, flags: 7, ioas_id: source.ioasId, user_va: 0x7000n, length: PAGE, iova: IOVA };
    const bytes = uapi.iommu_ioas_map.encode(values);
    expect(iommu.kernel.ioctl(iommu.fd, uapi.IOMMU_IOAS_MAP.request, bytes)).toBe(0);
    const error = errorOf(() => device.attach(source, { replace: true })) as IommuError;
    expect(error).toMatchObject({ code: 'EFAULT' });
    expect(error.hint).toContain('that mapped by a raw call is not there');
  });
});

describe('options', () => {
  test('huge pages are on, and can be switched off while nothing is both mapped and attached', () => {
    const { target, buffer } = setUp();
    expect(target.hugePages).toBe(true);
    target.hugePages = false;
    expect(target.hugePages).toBe(false);
    target.hugePages = true;
    target.map(buffer, { iova: IOVA });
    expect(errorOf(() => (target.hugePages = false))).toMatchObject({
      code: 'EINVAL',
      request: 'IOMMU_OPTION',
    });
    target.close();
    expect(() => target.hugePages).toThrow('EBADF');
  });

  test('the accounting mode is chosen before anything is made', () => {
    const iommu = openMock();
    expect(iommu.accounting).toBe('user');
    iommu.accounting = 'process';
    expect(iommu.accounting).toBe('process');
    iommu.accounting = 'user';
    expect(() => (iommu.accounting = 'group' as 'user')).toThrow(TypeError);
    iommu.createAddressSpace();
    expect(errorOf(() => (iommu.accounting = 'process'))).toMatchObject({
      code: 'EBUSY',
      hint: 'set the accounting mode first, before anything is made',
    });
    iommu.close();
    expect(() => iommu.accounting).toThrow('EBADF');
    expect(() => iommu.changeProcess()).toThrow('EBADF');
  });
});
