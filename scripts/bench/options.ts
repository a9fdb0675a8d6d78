// The command line of `npm run bench`.
import { parseArgs } from 'node:util';

export interface BenchOptions {
  /** One JSON object on stdout instead of a table. */
  json: boolean;
  /** The table also goes into README.md, if it has everything. */
  readme: boolean;
  /** Instructions instead of time: of the figures in the VM. */
  instructions: boolean;
  /** Name the figures instead of measuring them. */
  list: boolean;
  /** Measure these figures; all of them when empty. */
  only: string[];
  /** Trials of each side of a figure, 1 to 99. */
  runs: number;
  /** How long one trial measures, after it has warmed up: 1 to 60,000. */
  milliseconds: number;
}

/** A command line that makes no sense; the message says what to change. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export const HELP = `Usage: npm run bench -- [options]

Measures each figure beside its peers: trials alternate, each in a process of its own. What is
printed are medians; a ratio is ours divided by the peer's, so below 1 we are faster.

  --json             one JSON object: {"name": {"ours", "peer": {…}, "ratio": {…}, "unit"}};
                     {"error": {"message"}} where the command line makes no sense
  --readme           write the table into README.md too, if nothing is missing
  --instructions     count the instructions of the figures in the VM, kernel's and all, instead of
                     taking their time: the same on a machine that is busy with other things
  --only NAME        measure this figure alone (may be repeated)
  --list             name the figures, or those of --only, and end; with --json:
                     [{"name", "about", "unit", "peers", "inVm"}]
  --runs N           trials of each side (default 5)
  --milliseconds N   how long one trial measures, once warm (default 50)
  --help             show this

Figures whose names begin with vm- are measured in the VM (npm run vm), all in one guest.
What cannot be measured here (a C peer where there is no C compiler: set CC; the VM without QEMU
or a guest kernel) is left out, and stderr says why. Exit status: 1 when a trial failed, 2 when the command line made no sense.
`;

const SPECIFICATION = {
  json: { type: 'boolean', default: false },
  readme: { type: 'boolean', default: false },
  instructions: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  only: { type: 'string', multiple: true, default: [] as string[] },
  runs: { type: 'string', default: '5' },
  milliseconds: { type: 'string', default: '50' },
  help: { type: 'boolean', default: false },
} as const;

function integer(name: string, value: string, low: number, high: number): number {
  const number = /^\d+$/.test(value) ? Number(value) : NaN;
  if (!(number >= low && number <= high)) {
    throw new UsageError(`--${name} is a whole number from ${low} to ${high}, not '${value}'`);
  }
  return number;
}

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: SPECIFICATION, strict: true }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/**
 * Reads the command line; `names` are the figures there are.
 * @returns the options, or 'help' when help was asked for
 * @throws UsageError for an unknown option or figure, or a bad value
 */
export function parseOptions(args: string[], names: readonly string[]): BenchOptions | 'help' {
  const values = parse(args);
  if (values.help) return 'help';
  for (const name of values.only) {
    if (!names.includes(name)) {
      throw new UsageError(`--only ${name}: there is no such figure; there are ${names.join(', ')}`);
    }
  }
  if (values.readme && (values.json || values.list || values.instructions || values.only.length > 0)) {
    throw new UsageError(
      '--readme is for a table of every figure: leave --json, --list, --instructions and --only out',
    );
  }
  return {
    json: values.json,
    readme: values.readme,
    instructions: values.instructions,
    list: values.list,
    only: values.only,
    runs: integer('runs', values.runs, 1, 99),
    milliseconds: integer('milliseconds', values.milliseconds, 1, 60_000),
  };
}
