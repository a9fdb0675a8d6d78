/**
 * The one place where failures become Errors. Everything the kernel refuses, and everything this package
 * refuses on the kernel's behalf, is an IommuError; misuse (a wrong type, a value out of range) is a
 * TypeError or RangeError.
 */
import { errno, errnoName, type Errno } from './uapi';

/** Where a failure happened. */
export interface Where {
  /** The system call: 'ioctl', 'open', 'pread' … */
  readonly syscall: string;
  /** The ioctl's macro name, such as 'IOMMU_IOAS_MAP'. */
  readonly request?: string | undefined;
  /** The file, where the call takes one. */
  readonly path?: string | undefined;
  /** What to do about it. Without one, the table of known causes is asked. */
  readonly hint?: string | undefined;
  /** A hint beside the known cause: which entry it was, what in the call the running kernel is too old for. */
  readonly also?: string | undefined;
}

/** A refused operation. */
export class IommuError extends Error {
  /** The errno's name: 'EOPNOTSUPP'. */
  readonly code: string;
  /** The errno, negative: -95. */
  readonly errno: number;
  /** The system call that failed, or that would have failed: 'ioctl'. */
  readonly syscall: string;
  /** The ioctl's name in the kernel header, such as 'IOMMU_IOAS_MAP'; undefined for other system calls. */
  readonly request: string | undefined;
  /** The file concerned, for calls that take a path. */
  readonly path: string | undefined;
  /** What happened, without the place, code and hint that `message` adds. */
  readonly reason: string;
  /** The next step, where the cause is known. */
  readonly hint: string | undefined;

  constructor(number: number, where: Where, reason?: string) {
    const negative = -Math.abs(number);
    const code = errnoName(negative);
    // A reason of our own says more than the causes the kernel's bare errno may have.
    const cause = where.hint ?? (reason === undefined ? knownCause(where, code) : undefined);
    const hint = [cause, where.also].filter(Boolean).join('; ') || undefined;
    const place = [where.request ?? where.syscall, where.path].filter(Boolean).join(' ');
    const text = reason ?? (code in TEXTS ? TEXTS[code as Errno] : 'failed');
    super(`${place}: ${code}: ${text}${hint ? ` (${hint})` : ''}`);
    this.name = 'IommuError';
    this.code = code;
    this.errno = negative;
    this.syscall = where.syscall;
    this.request = where.request;
    this.path = where.path;
    this.reason = text;
    this.hint = hint;
  }
}

/** The error for a call that returned `result`, a negative errno. */
export function failure(result: number, where: Where): IommuError {
  return new IommuError(result, where);
}

/** The error for something refused before the kernel is asked. `reason` says what, `where.hint` what to do. */
export function refusal(code: Errno, reason: string, where: Partial<Where> = {}): IommuError {
  return new IommuError(errno[code], { syscall: 'ioctl', ...where }, reason);
}

/** Returns `result` if it is not negative; throws the error it stands for otherwise. */
export function check(result: number, where: Where): number {
  if (result < 0) throw failure(result, where);
  return result;
}

/** As `check`, for calls that return an object or a negative errno. */
export function checkObject<T extends object | string>(result: T | number, where: Where): T {
  if (typeof result === 'number') throw failure(result, where);
  return result;
}

/** What an errno says by itself. */
export const TEXTS: Readonly<Record<Errno, string>> = {
  EPERM: 'operation not permitted',
  ENOENT: 'no such file or object',
  EINTR: 'interrupted',
  EIO: 'input/output error',
  ENXIO: 'no such device or address',
  E2BIG: 'argument too long for this kernel',
  EBADF: 'bad file descriptor',
  EAGAIN: 'try again',
  ENOMEM: 'cannot allocate memory',
  EACCES: 'permission denied',
  EFAULT: 'bad address',
  EBUSY: 'busy',
  EEXIST: 'already exists',
  EXDEV: 'not on the same device',
  ENODEV: 'no such device',
  ENOTDIR: 'not a directory',
  EISDIR: 'is a directory',
  EINVAL: 'invalid argument',
  ENFILE: 'too many open files in the system',
  EMFILE: 'too many open files',
  ENOTTY: 'the kernel does not know this request',
  EFBIG: 'file too large',
  ENOSPC: 'no space left',
  ESPIPE: 'cannot seek in this file',
  EROFS: 'read-only file system',
  ERANGE: 'result out of range',
  ENAMETOOLONG: 'name too long',
  ENOSYS: 'not implemented here',
  ENOTEMPTY: 'not empty',
  ELOOP: 'too many symbolic links',
  EOVERFLOW: 'value too large',
  EBADFD: 'not an iommufd',
  EMSGSIZE: 'buffer too small',
  EOPNOTSUPP: 'not supported',
  EUSERS: 'too many users',
  EADDRINUSE: 'address in use',
  ETIMEDOUT: 'timed out',
  ESTALE: 'no longer there',
  ECANCELED: 'cancelled',
};

const LOCKED_MEMORY =
  'memory mapped for DMA stays locked: raise the limit with `ulimit -l` or RLIMIT_MEMLOCK, or grant CAP_IPC_LOCK';

/** Known causes: by request or `syscall path`, then by errno. docs/troubleshooting.md lists them. */
export const CAUSES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'open /dev/iommu': {
    EACCES: 'run as root, or let your user open it: sudo chown $USER /dev/iommu',
    EPERM: 'the container or security policy forbids it: allow the device /dev/iommu (docker run --device)',
    ENOENT: 'the kernel has no iommufd: sudo modprobe iommufd, or build it with CONFIG_IOMMUFD',
    ENODEV: 'the iommufd module is not loaded: sudo modprobe iommufd',
    ENXIO: 'the iommufd module is not loaded: sudo modprobe iommufd',
  },
  'open /dev/vfio/devices': {
    EACCES: 'run as root, or let your user open it with chown on this path',
    EPERM: 'the container or security policy forbids it: allow this device as well as /dev/iommu',
    EBUSY: 'another process has the device open',
    ENOENT: 'the device went away, or the kernel lacks CONFIG_VFIO_DEVICE_CDEV',
    ENODEV: 'the device went away',
    ENXIO: 'the device went away',
  },
  VFIO_DEVICE_BIND_IOMMUFD: {
    EPERM:
      'interrupt remapping is off, so a device could forge interrupts (enable it in the firmware; QEMU: intremap=on of intel-iommu or amd-iommu), ' +
      "or another process owns a device of this device's IOMMU group",
    EINVAL:
      'the device is already bound, by this or another process: Linux binds a device to one iommufd at a time; or its DMA is not coherent with the CPU caches',
    EBUSY: 'the group of this device is open through /dev/vfio/<group>: close that first',
    ENODEV: 'the device has no IOMMU group: switch the IOMMU on (intel_iommu=on or amd_iommu=on)',
  },
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: {
    EINVAL:
      'the IOMMU of this device cannot use this address space, or another device of its IOMMU group is attached to a different one',
    ENODEV:
      'page faults need a device with the Page Request Interface, ATS and an IOMMU that supports them: one is missing',
    EADDRINUSE:
      "existing mappings or allowed ranges do not fit the device's reserved IOVA ranges or the IOMMU's page size: see iovaRanges()",
    EFAULT: 'the space maps memory that no longer exists: memory is pinned when the first device attaches',
    ENOENT:
      'a page table nested on a virtual IOMMU takes a device that has a virtual device there: viommu.createDevice() first',
    ENOMEM: LOCKED_MEMORY,
    EOPNOTSUPP: 'the driver of this device or of its IOMMU cannot attach PASIDs',
  },
  VFIO_DEVICE_RESET: {
    ENOTTY: 'the device has no reset that VFIO can use: info().canReset says so',
    EINVAL: 'the device has no reset that VFIO can use: info().canReset says so',
  },
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: {
    ENODEV:
      'no bridge can reset the bus of this device: it is the root bus, or the bridge must not be used for that',
  },
  VFIO_DEVICE_PCI_HOT_RESET: {
    ENODEV:
      'no bridge can reset the bus of this device: it is the root bus, or the bridge must not be used for that',
    EINVAL:
      'another device on the bus is not bound to this Iommu, nor in the group of one that is: see hotResetDevices()',
  },
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: {
    ENOTTY: 'the driver of this device has no low power: see features()',
    EINVAL: 'low power is allowed already',
  },
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP: {
    ENOTTY: 'the driver of this device has no low power: see features()',
    EINVAL: 'low power is allowed already, or the descriptor is not an eventfd',
  },
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT: {
    ENOTTY: 'the driver of this device has no low power: see features()',
  },
  VFIO_DEVICE_SET_IRQS: {
    EINVAL: 'one kind of interrupt at a time: close those of the other kind first',
  },
  IOMMU_IOAS_MAP: {
    EEXIST: 'the IOVA range is already mapped: unmap it first, or leave iova out to let the kernel choose',
    EOVERFLOW: 'IOVA plus length must stay below 2^64',
    ENOSPC: 'no free IOVA range is large enough: unmap something, or widen allow()',
    EFAULT: 'the memory is not accessible in this way',
    ENOMEM: LOCKED_MEMORY,
  },
  IOMMU_IOAS_UNMAP: {
    ENOENT: 'nothing is mapped there: see space.mappings',
    EINVAL: 'the length must not be 0',
    EOVERFLOW: 'IOVA plus length must stay below 2^64',
    EBUSY: 'a hardware queue lives in this memory',
  },
  IOMMU_IOAS_ALLOW_IOVAS: {
    EINVAL: 'ranges must not overlap, and a range is longer than one byte',
    EADDRINUSE: 'a range touches addresses the hardware reserves: see iovaRanges()',
  },
  IOMMU_IOAS_MAP_FILE: {
    EEXIST: 'the IOVA range is already mapped: unmap it first, or leave iova out to let the kernel choose',
    EOVERFLOW: 'IOVA plus length must stay below 2^64',
    ENOSPC: 'no free IOVA range is large enough: unmap something, or widen allow()',
    EINVAL: 'the range must be aligned and inside the memfd',
    ENOMEM: LOCKED_MEMORY,
  },
  IOMMU_IOAS_COPY: {
    EEXIST: 'the IOVA range is already mapped: unmap it first, or leave iova out to let the kernel choose',
    ENOENT: 'the mapping to copy is gone',
    EPERM: 'the source is read-only: pass write: false',
    ENOSPC: 'no free IOVA range is large enough: unmap something, or widen allow()',
    EFAULT: 'the memory is not accessible in this way',
    ENOMEM: LOCKED_MEMORY,
  },
  IOMMU_IOAS_CHANGE_PROCESS: {
    EINVAL:
      'only memory mapped by its file can change hands: map buffers of allocateDma(…, { memfd: true }) only',
  },
  IOMMU_OPTION: {
    EPERM: 'the accounting mode needs CAP_SYS_RESOURCE',
    EBUSY: 'set the accounting mode first, before anything is made',
    EINVAL: 'huge pages can be switched off only before something is both mapped and attached',
  },
  IOMMU_HWPT_ALLOC: {
    EOPNOTSUPP:
      "the device's IOMMU or its driver lacks this (nesting, dirty tracking, PASID or page faults): see device.hardwareInfo()",
    EINVAL: 'the page table does not fit this IOMMU: see device.hardwareInfo()',
    EADDRINUSE:
      "existing mappings or allowed ranges do not fit the device's reserved IOVA ranges or the IOMMU's page size: see iovaRanges()",
    EIO: 'the IOMMU does not take this stream table entry',
    ENOMEM: LOCKED_MEMORY,
  },
  IOMMU_HWPT_SET_DIRTY_TRACKING: {
    EOPNOTSUPP: 'make the page table or the address space with dirtyTracking: true',
  },
  IOMMU_HWPT_GET_DIRTY_BITMAP: {
    EOPNOTSUPP: 'make the page table or the address space with dirtyTracking: true',
  },
  IOMMU_HWPT_INVALIDATE: {
    EINVAL: 'the entries are not of the kind this table or virtual IOMMU takes',
    EOPNOTSUPP: 'this table or virtual IOMMU has no such invalidation',
    EIO: 'the IOMMU does not take this command',
  },
  IOMMU_VIOMMU_ALLOC: {
    EOPNOTSUPP: "the device's IOMMU or its driver has no virtual IOMMU of this type",
    EINVAL: 'a virtual IOMMU needs a page table made with nestParent: true, on the same IOMMU as the device',
  },
  IOMMU_VDEVICE_ALLOC: {
    EEXIST: 'the device has a virtual device already, or its virtual ID is taken',
    EINVAL: 'the device is behind another IOMMU than the virtual IOMMU',
  },
  IOMMU_VEVENTQ_ALLOC: {
    EEXIST: 'a virtual IOMMU has one event queue of a type',
    EINVAL: 'the depth must be 1 to 524288 events',
    EOPNOTSUPP: 'the virtual IOMMU reports no events of this type',
  },
  IOMMU_HW_QUEUE_ALLOC: {
    ENOENT: 'the memory of the queue is not mapped in the parent space',
    EFAULT: 'the memory of the queue must be physically contiguous: use a huge page',
    EEXIST: 'the index is taken',
    EIO: 'queues are made in the order of their indices, from 0',
    EOPNOTSUPP: 'the virtual IOMMU has no queues of this type',
  },
  IOMMU_DESTROY: { EBUSY: 'something still uses the object: a raw mmap, or an object made by a raw call' },
  IOMMU_TEST_CMD: {
    ENOTTY: 'this kernel has no mock IOMMU: it needs CONFIG_IOMMUFD_TEST',
  },
};

function knownCause(where: Where, code: string): string | undefined {
  const folder = where.path?.startsWith('/dev/vfio/devices/') ? '/dev/vfio/devices' : where.path;
  const key = where.request ?? (folder ? `${where.syscall} ${folder}` : where.syscall);
  return CAUSES[key]?.[code];
}
