/** Which kernel to use, and everything of the seam itself: `iommufd/kernel`. */
import { failure, IommuError, refusal } from './errors';
import { O_CLOEXEC, O_RDWR, type Kernel } from './kernel';
import { errno, errnoName } from './uapi';

export * from './kernel';

/** Anything with a simulated process: a Machine of `iommufd/sim`. */
export interface MachineLike {
  /** The view that the machine's first process has of its kernel. */
  process(): Kernel;
}

/** What `Iommu.open` takes. */
export type Backend = 'auto' | 'linux' | 'simulated' | MachineLike | Kernel;

/** An open /dev/iommu and where it is. */
export interface Choice {
  readonly kernel: Kernel;
  /** The descriptor of /dev/iommu. */
  readonly fd: number;
  readonly backend: 'linux' | 'simulated';
  /** Why this backend, as a sentence. */
  readonly reason: string;
}

const NAMES = ['auto', 'linux', 'simulated'] as const;
const DEV_IOMMU = '/dev/iommu';
/** What opening /dev/iommu says where there is no iommufd. */
const ABSENT: readonly number[] = [-errno.ENOENT, -errno.ENODEV, -errno.ENXIO];

let simulatedProcess: Kernel | undefined;

/**
 * A kernel to make calls on: Linux's; that of the default simulated machine, which all callers in this environment
 * share, as they share Linux; or that of a machine of yours.
 *
 * Throws IommuError where Linux cannot be had (not Linux, or the addon was not built).
 */
export function openKernel(backend: 'linux' | 'simulated' | MachineLike): Kernel {
  if (isMachine(backend)) return backend.process();
  if (backend === 'simulated') return (simulatedProcess ??= new (loadSimulation().Machine)().process());
  if (backend === 'linux') return openLinux();
  throw new TypeError(`a kernel is 'linux', 'simulated' or a Machine, not ${describe(backend)}`);
}

/** Opens /dev/iommu on the backend asked for, or, for 'auto', the one this machine has. Throws TypeError, IommuError. */
export function chooseBackend(wanted?: Backend): Choice {
  const backend = wanted ?? fromEnvironment() ?? 'auto';
  if (isKernel(backend)) return choose(backend, 'the program passed this kernel');
  if (isMachine(backend)) return choose(backend.process(), 'the program passed this machine');
  const source = wanted === undefined ? 'IOMMUFD_BACKEND asks for it' : 'the program asks for it';
  switch (backend) {
    case 'simulated':
    case 'linux':
      return choose(openKernel(backend), source);
    case 'auto':
      return chooseAutomatically();
    default:
      throw new TypeError(
        `backend must be 'auto', 'linux', 'simulated', a Machine or a Kernel, not ${describe(backend)}`,
      );
  }
}

function fromEnvironment(): (typeof NAMES)[number] | undefined {
  const value = process.env['IOMMUFD_BACKEND'];
  if (!value) return undefined;
  const name = NAMES.find((candidate) => candidate === value);
  if (!name) throw new TypeError(`IOMMUFD_BACKEND is '${value}': it must be one of ${NAMES.join(', ')}`);
  return name;
}

function chooseAutomatically(): Choice {
  let kernel: Kernel;
  try {
    kernel = openLinux();
  } catch (error) {
    if (!(error instanceof IommuError)) throw error;
    return choose(openKernel('simulated'), error.reason);
  }
  const fd = kernel.open(DEV_IOMMU, O_RDWR | O_CLOEXEC);
  if (fd >= 0) return { kernel, fd, backend: 'linux', reason: `${DEV_IOMMU} is there` };
  if (!ABSENT.includes(fd)) throw failure(fd, { syscall: 'open', path: DEV_IOMMU });
  return choose(openKernel('simulated'), `this machine has no ${DEV_IOMMU} (${errnoName(fd)})`);
}

function choose(kernel: Kernel, reason: string): Choice {
  const fd = kernel.open(DEV_IOMMU, O_RDWR | O_CLOEXEC);
  if (fd < 0) throw failure(fd, { syscall: 'open', path: DEV_IOMMU });
  return { kernel, fd, backend: kernel.backend, reason };
}

function openLinux(): Kernel {
  const kernel = loadLinux().LinuxKernel.load();
  if (!('reason' in kernel)) return kernel;
  throw refusal('ENOSYS', kernel.reason, {
    syscall: 'open',
    path: DEV_IOMMU,
    hint: "backend 'simulated' works everywhere",
  });
}

// Loaded when asked for: `import 'iommufd'` must work where the addon does not exist.
function loadLinux(): typeof import('./linux/kernel') {
  return require('./linux/kernel') as typeof import('./linux/kernel');
}

function loadSimulation(): typeof import('./sim') {
  return require('./sim') as typeof import('./sim');
}

function isMachine(value: unknown): value is MachineLike {
  return (
    typeof value === 'object' && value !== null && 'process' in value && typeof value.process === 'function'
  );
}

function isKernel(value: unknown): value is Kernel {
  return typeof value === 'object' && value !== null && 'ioctl' in value && typeof value.ioctl === 'function';
}

function describe(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : typeof value;
}
