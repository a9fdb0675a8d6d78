// The command line of `npm run oracle`.
import { parseArgs } from 'node:util';
import { INTERRUPT_QUIRKS, QUIRKS, type QuirkName } from './quirks';
import { MODES, type Mode } from './scene';

export interface OracleOptions {
  readonly mode: Mode | 'interrupts';
  readonly accesses: number;
  /** 32 bits. */
  readonly seed: number;
  readonly json: boolean;
  /** Deviations of QEMU that are not allowed for. */
  readonly without: readonly QuirkName[];
}

/** A command line that makes no sense; the message says what to change. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export const HELP = `Usage: npm run oracle -- --mode legacy|second-stage|first-stage|interrupts [options]

Runs the same accesses through the simulated VT-d unit and through QEMU's, over random tables, and compares where
they went, the data, the fault record and every word of the tables. Prints the tables of a difference, made as small
as possible.

  --mode NAME      legacy, or scalable mode with second-stage or first-stage tables; or interrupts: messages and
                   remapping entries instead
  --accesses N     how many, 1 to 100 million (default 20000)
  --seed N         of the random tables, 0 to 2^32 - 1 (default: another one each time)
  --without LIST   deviations of QEMU that are not to be allowed for: names of scripts/oracle/quirks.ts
  --json           print JSON only
  --help           show this

QEMU 11.1.3 or later is $IOMMUFD_ORACLE_QEMU, or the one that scripts/oracle/qemu puts in the cache (done when it is
missing), or the one on PATH.

Exit status: 0 if there is no difference, 1 if there is one, 2 if it could not be run.
`;

const SPECIFICATION = {
  mode: { type: 'string' },
  accesses: { type: 'string', default: '20000' },
  seed: { type: 'string' },
  without: { type: 'string', default: '' },
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

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new UsageError(`--${name} is a whole number from ${least} to ${most}, not '${text}'`);
  return value;
}

/** `fresh` is the seed where none is given. Throws UsageError. */
export function parseOptions(args: string[], fresh: number): OracleOptions | 'help' {
  const values = parse(args);
  if (values.help) return 'help';
  const modes = [...MODES, 'interrupts'] as const;
  const mode = modes.find((name) => name === values.mode);
  if (mode === undefined)
    throw new UsageError(`--mode is ${modes.join(', ')}, not '${values.mode ?? 'nothing'}'`);
  const without = values.without === '' ? [] : values.without.split(',');
  const known = Object.keys({ ...QUIRKS, ...INTERRUPT_QUIRKS });
  const strange = without.find((name) => !known.includes(name));
  if (strange !== undefined)
    throw new UsageError(`--without is a list of ${known.join(', ')}, not '${strange}'`);
  return {
    mode,
    accesses: integer('accesses', values.accesses, 1, 1e8),
    seed: values.seed === undefined ? fresh : integer('seed', values.seed, 0, 2 ** 32 - 1),
    json: values.json,
    without: without as QuirkName[],
  };
}
