// The command line of `npm run conformance`.
import { parseArgs } from 'node:util';

/** What is in front of the devices: nothing, or QEMU's VT-d unit. */
export type IommuChoice = 'intel' | 'none';

export interface ConformanceOptions {
  readonly mode: 'backend' | 'compare' | 'serve';
  readonly backend: 'simulated' | 'linux';
  /** Of the machines that are compared. */
  readonly iommu: IommuChoice;
  readonly json: boolean;
  /** Random sequences. */
  readonly sequences: number;
  /** Seconds after which no more of them are begun; Infinity for all. */
  readonly seconds: number;
  /** 32 bits. */
  readonly seed: number;
  /** Flavours of random sequences; all if empty. */
  readonly only: readonly string[];
  /** KiB that the programs may lock, without CAP_IPC_LOCK; undefined: as much as they like. */
  readonly memlock: number | undefined;
  /** Most differences that are made shorter. */
  readonly shrink: number;
  /** Seconds until the guest is ended. */
  readonly timeout: number;
  /** The folder of rounds that a guest serves. */
  readonly folder: string;
}

/** A command line that makes no sense; the message says what to change. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export const DEFAULT_SEQUENCES = 100_000;

export const HELP = `Usage: npm run conformance -- --backend simulated|linux [--json]
       npm run conformance -- --compare [options]

Runs one suite of raw call sequences on a kernel and prints what each call did, or, with --compare, runs it and
random sequences on the simulated kernel and on Linux in the virtual machine and prints where they differ.

  --backend NAME   simulated, or linux: the kernel this runs on
  --compare        both kernels, Linux in the virtual machine (IOMMUFD_VM_KERNEL: see npm run vm -- --help)
  --iommu TYPE     intel, or none: machines without one, whose device is VFIO's all the same (default intel)
  --sequences N    random sequences, 0 to 100 million (default ${DEFAULT_SEQUENCES}; without --compare 0)
  --seconds N      begin no more random sequences after N seconds (default: make them all)
  --seed N         of the random sequences, 0 to 2^32 - 1 (default: another one each time)
  --flavours LIST  only these kinds of random sequences: plain, several, bound, mock, virtual
  --memlock N      with --compare: N KiB is all that may be locked, and CAP_IPC_LOCK is gone, on both
  --shrink N       differences to find the shortest sequence for (default 20)
  --timeout N      end the guest after N seconds (default 3600)
  --json           print JSON
  --help           show this

Exit status: 0 if there is no difference and nothing was left out, 1 otherwise, 2 if it could not be run.
`;

const SPECIFICATION = {
  backend: { type: 'string' },
  compare: { type: 'boolean', default: false },
  serve: { type: 'string' },
  iommu: { type: 'string', default: 'intel' },
  sequences: { type: 'string' },
  seconds: { type: 'string' },
  seed: { type: 'string' },
  flavours: { type: 'string', default: '' },
  memlock: { type: 'string' },
  shrink: { type: 'string', default: '20' },
  timeout: { type: 'string', default: '3600' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: SPECIFICATION, strict: true }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function integer(name: string, text: string, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value <= most)) throw new UsageError(`--${name} is a whole number up to ${most}, not '${text}'`);
  return value;
}

/** `fresh` is the seed where none is given. Throws UsageError. */
export function parseOptions(args: string[], fresh: number): ConformanceOptions | 'help' {
  const values = parse(args);
  if (values.help) return 'help';
  const { backend = 'simulated', compare, serve, iommu } = values;
  if (backend !== 'simulated' && backend !== 'linux')
    throw new UsageError(`--backend is simulated or linux, not '${backend}'`);
  if (iommu !== 'intel' && iommu !== 'none') throw new UsageError(`--iommu is intel or none, not '${iommu}'`);
  if ([values.backend, compare || undefined, serve].filter((each) => each !== undefined).length !== 1)
    throw new UsageError('either --backend or --compare is needed: see --help');
  const known = ['plain', 'several', 'bound', 'mock', 'virtual'];
  const only = values.flavours === '' ? [] : values.flavours.split(',');
  const strange = only.find((name) => !known.includes(name));
  if (strange !== undefined)
    throw new UsageError(`--flavours is a list of ${known.join(', ')}, not '${strange}'`);
  return {
    mode: compare ? 'compare' : serve === undefined ? 'backend' : 'serve',
    backend,
    iommu,
    json: values.json,
    sequences: integer('sequences', values.sequences ?? String(compare ? DEFAULT_SEQUENCES : 0), 1e8),
    seconds: values.seconds === undefined ? Infinity : integer('seconds', values.seconds, 2_147_483),
    seed: values.seed === undefined ? fresh : integer('seed', values.seed, 2 ** 32 - 1),
    only,
    memlock: values.memlock === undefined ? undefined : integer('memlock', values.memlock, 2 ** 40),
    shrink: integer('shrink', values.shrink, 1000),
    timeout: integer('timeout', values.timeout, 2_147_483),
    folder: serve ?? '',
  };
}
