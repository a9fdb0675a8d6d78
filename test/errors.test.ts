import { check, failure, IommuError, refusal } from '../lib/errors';
import { attempt, attemptRead, call } from '../lib/ioctl';
import { errno, IOMMU_DESTROY, IOMMU_IOAS_ALLOC } from '../lib/uapi';
import { ScriptedKernel } from './scripted-kernel';

describe('IommuError', () => {
  test('says where, which errno, what and what to do', () => {
    const error = failure(-errno.ENOMEM, { syscall: 'ioctl', request: 'IOMMU_IOAS_MAP' });
    expect(error).toMatchObject({
      name: 'IommuError',
      code: 'ENOMEM',
      errno: -12,
      syscall: 'ioctl',
      request: 'IOMMU_IOAS_MAP',
      path: undefined,
      reason: 'cannot allocate memory',
    });
    expect(error.hint).toContain('RLIMIT_MEMLOCK');
    expect(error.message).toBe(`IOMMU_IOAS_MAP: ENOMEM: cannot allocate memory (${error.hint})`);
    expect(error).toBeInstanceOf(Error);
  });

  test('95 is EOPNOTSUPP and 98 EADDRINUSE, whatever Node calls them', () => {
    expect(failure(-95, { syscall: 'ioctl' }).code).toBe('EOPNOTSUPP');
    expect(failure(-98, { syscall: 'ioctl' }).code).toBe('EADDRINUSE');
    expect(refusal('EADDRINUSE', 'taken').errno).toBe(-98);
  });

  test('an errno without a name is still reported', () => {
    expect(failure(-121, { syscall: 'read' }).message).toBe('read: errno 121: failed');
  });

  test('the hint depends on the file for open', () => {
    expect(failure(-13, { syscall: 'open', path: '/dev/iommu' }).hint).toContain('/dev/iommu');
    expect(failure(-16, { syscall: 'open', path: '/dev/vfio/devices/vfio3' }).hint).toContain(
      'another process',
    );
    expect(failure(-13, { syscall: 'open', path: '/tmp/x' }).hint).toBeUndefined();
  });

  test('check passes results and throws errnos', () => {
    expect(check(7, { syscall: 'eventfd' })).toBe(7);
    expect(() => check(-24, { syscall: 'eventfd' })).toThrow('eventfd: EMFILE: too many open files');
  });
});

describe('calls', () => {
  test('fill in size, decode what the kernel wrote', () => {
    const kernel = new ScriptedKernel();
    kernel.ioctls.set(IOMMU_IOAS_ALLOC.request, (bytes) => {
      expect(IOMMU_IOAS_ALLOC.struct.decode(bytes as Uint8Array).size).toBe(12);
      (bytes as Uint8Array)[8] = 5;
      return 0;
    });
    expect(call(kernel, 3, IOMMU_IOAS_ALLOC, {}).out_ioas_id).toBe(5);
  });

  test('a negative result throws with the name of the request', () => {
    const kernel = new ScriptedKernel();
    kernel.ioctls.set(IOMMU_DESTROY.request, () => -errno.EBUSY);
    const destroy = () => call(kernel, 3, IOMMU_DESTROY, { id: 1 });
    expect(destroy).toThrow(IommuError);
    expect(destroy).toThrow('IOMMU_DESTROY: EBUSY: busy');
    expect(attempt(kernel, 3, IOMMU_DESTROY, { id: 1 }).result).toBe(-16);
  });

  test('an interrupted call is made again', () => {
    const kernel = new ScriptedKernel();
    let calls = 0;
    kernel.ioctls.set(IOMMU_DESTROY.request, () => (++calls < 3 ? -errno.EINTR : 0));
    call(kernel, 3, IOMMU_DESTROY, { id: 1 });
    expect(calls).toBe(3);
    kernel.reads.push(-errno.EINTR, new Uint8Array([9]));
    const bytes = new Uint8Array(1);
    expect(attemptRead(kernel, 3, bytes)).toBe(1);
    expect(bytes[0]).toBe(9);
  });
});
