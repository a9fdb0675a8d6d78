// The command line of `iommufd vm`, which is also `npm run vm`: options first, then the command to run in the guest, untouched.
import { parseArgs } from 'node:util';

export const IOMMU_TYPES = ['intel', 'virtio', 'amd', 'none'] as const;
export type IommuType = (typeof IOMMU_TYPES)[number];

export const ACCELERATORS = ['tcg', 'kvm', 'icount'] as const;
export type Accelerator = (typeof ACCELERATORS)[number];

export interface VmOptions {
  /** Guest memory as QEMU takes it: a number of megabytes or gigabytes with the suffix M or G. */
  memory: string;
  /** Virtual CPUs, 1 to 255. */
  cpus: number;
  /** QEMU's program; looked for on PATH when undefined. */
  qemu: string | undefined;
  iommu: IommuType;
  /** Whether the IOMMU remaps interrupts: without, Linux binds no device. */
  interruptRemapping: boolean;
  accel: Accelerator;
  /** Kernel image; looked for as kernel.ts says when undefined. */
  kernel: string | undefined;
  /** More kernel parameters. */
  append: string;
  /** More QEMU devices, each the argument of a -device. */
  devices: string[];
  /** Host folders the guest may write, mounted at the same path. */
  shares: string[];
  /** Modules that the guest loads, in this order: names of files beside the kernel image, without '.ko'. */
  modules: string[];
  /** Bind the edu devices to vfio-pci before the command runs. */
  bind: boolean;
  /** Take the NVMe disk from the guest's driver and give it to vfio-pci, before the command runs. */
  nvme: boolean;
  /** The number of the user that COMMAND runs as, 0 (root) to 65534. */
  user: number;
  /** Where the dump of the IOMMU's tables goes that COMMAND asks for; see tables.ts. */
  dumpTables: string | undefined;
  /** Seconds until the guest is ended with status 124; 0 is no limit. */
  timeout: number;
  /** Show the guest's console on stderr as it comes. */
  verbose: boolean;
  /** Print one JSON object about the run, COMMAND's output included, instead of passing that through. */
  json: boolean;
  command: string[];
}

/** A command line that makes no sense; the message says what to change. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export const HELP = `Usage: iommufd vm [options] COMMAND [ARGUMENT…]
(in a clone of the package: npm run vm -- [options] COMMAND [ARGUMENT…])

Boots a guest with a virtual IOMMU, an edu device at 0000:00:04.0 and an NVMe disk at
0000:00:05.0, more edu devices behind root ports at 0000:01:00.0, 02:00.0 and 02:00.1, runs
COMMAND there as root in the current folder, and powers off. The host's file system is the
guest's root, read-only; what the guest writes to /tmp is gone afterwards.
COMMAND's stdout, stderr and exit status come through unchanged.

  --memory SIZE    guest memory (default 4G)
  --cpus N         virtual CPUs (default 2)
  --qemu PATH      QEMU's program (default: qemu-system-x86_64 on PATH)
  --iommu TYPE     ${IOMMU_TYPES.join(', ')} (default intel)
  --no-interrupt-remapping
                   the IOMMU remaps no interrupts, so that Linux binds no device
  --accel TYPE     ${ACCELERATORS.join(', ')} (default tcg); with icount the guest's clock counts the
                   instructions that it executes, each a nanosecond, whatever the machine does
  --kernel FILE    guest kernel (default: $IOMMUFD_VM_KERNEL, then what scripts/vm/kernel built)
  --append TEXT    more kernel parameters
  --device SPEC    one more QEMU device (may be repeated)
  --module NAME    load modules/NAME.ko, from beside the kernel image (may be repeated): mdev, then
                   mtty, make sample mediated devices
  --share DIR      a host folder the guest may write, at the same path (may be repeated)
  --dump-tables FILE
                   COMMAND can run the program that IOMMUFD_VM_DUMP_TABLES names: the tables of the
                   guest's VT-d unit, and what Linux says is in them, go to FILE
  --no-bind        leave the edu devices without a driver instead of binding them to vfio-pci
  --nvme           give the NVMe disk to vfio-pci, too; by itself it has the kernel's driver
  --user N         run COMMAND as the user of that number (default 0, root)
  --timeout N      end the guest after N seconds with status 124 (default 600, 0: never)
  --verbose        show the guest's console on stderr
  --json           print one object when COMMAND has ended, instead of passing its output through:
                   { "outcome", "status", "stdout", "stderr" }; outcome is exit, timeout, died or
                   aborted, and status this program's exit status; { "error": { "message" } } where
                   the options make no sense, or QEMU or the kernel is missing
  --help           show this

Exit status: COMMAND's; 2 bad arguments, 124 when the time was up, 125 when the guest could not be
started or died.
`;

const SPECIFICATION = {
  memory: { type: 'string', default: '4G' },
  cpus: { type: 'string', default: '2' },
  qemu: { type: 'string' },
  iommu: { type: 'string', default: 'intel' },
  'no-interrupt-remapping': { type: 'boolean', default: false },
  accel: { type: 'string', default: 'tcg' },
  kernel: { type: 'string' },
  append: { type: 'string', default: '' },
  device: { type: 'string', multiple: true, default: [] as string[] },
  module: { type: 'string', multiple: true, default: [] as string[] },
  share: { type: 'string', multiple: true, default: [] as string[] },
  'dump-tables': { type: 'string' },
  'no-bind': { type: 'boolean', default: false },
  nvme: { type: 'boolean', default: false },
  user: { type: 'string', default: '0' },
  timeout: { type: 'string', default: '600' },
  verbose: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** Bytes of a --memory size. */
export function memoryBytes(size: string): number {
  return Number(size.slice(0, -1)) * (size.endsWith('G') ? 2 ** 30 : 2 ** 20);
}

/** Our own options end at the first word that is none, or at `--`: what follows is the command's. */
function split(args: string[]): { own: string[]; command: string[] } {
  const { tokens } = parseArgs({
    args,
    options: SPECIFICATION,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const end = tokens.find((token) => token.kind !== 'option');
  if (end === undefined) return { own: args, command: [] };
  const skip = end.kind === 'option-terminator' ? 1 : 0;
  return { own: args.slice(0, end.index), command: args.slice(end.index + skip) };
}

/** Whether our own options ask for JSON, be the others what they may. */
export function wantsJson(args: string[]): boolean {
  return split(args).own.includes('--json');
}

function parseOwn(own: string[]) {
  try {
    return parseArgs({ args: own, options: SPECIFICATION, strict: true }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function oneOf<T extends string>(name: string, value: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new UsageError(`--${name} is one of ${choices.join(', ')}, not '${value}'`);
  return found;
}

function moduleName(name: string): string {
  if (/^[\w-]+$/.test(name)) return name;
  throw new UsageError(`--module is a name such as mtty, not '${name}'`);
}

function integer(name: string, value: string, low: number, high: number): number {
  const number = /^\d+$/.test(value) ? Number(value) : NaN;
  if (!(number >= low && number <= high)) {
    throw new UsageError(`--${name} is a whole number from ${low} to ${high}, not '${value}'`);
  }
  return number;
}

/**
 * Reads the command line.
 * @returns the options, or 'help' when help was asked for
 * @throws UsageError for an unknown option, a bad value or a missing command
 */
export function parseOptions(args: string[]): VmOptions | 'help' {
  const { own, command } = split(args);
  const values = parseOwn(own);
  if (values.help) return 'help';
  if (!/^[1-9]\d*[MG]$/.test(values.memory)) {
    throw new UsageError(`--memory is a size such as 512M or 4G, not '${values.memory}'`);
  }
  if (command.length === 0) throw new UsageError('no command to run in the guest: see --help');
  return {
    memory: values.memory,
    cpus: integer('cpus', values.cpus, 1, 255),
    qemu: values.qemu,
    iommu: oneOf('iommu', values.iommu, IOMMU_TYPES),
    interruptRemapping: !values['no-interrupt-remapping'],
    accel: oneOf('accel', values.accel, ACCELERATORS),
    kernel: values.kernel,
    append: values.append,
    devices: values.device,
    modules: values.module.map(moduleName),
    shares: values.share,
    bind: !values['no-bind'],
    nvme: values.nvme,
    user: integer('user', values.user, 0, 65_534),
    dumpTables: values['dump-tables'],
    // setTimeout holds at most 2^31 − 1 milliseconds.
    timeout: integer('timeout', values.timeout, 0, 2_147_483),
    verbose: values.verbose,
    json: values.json,
    command,
  };
}
