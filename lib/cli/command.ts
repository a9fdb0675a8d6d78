/** What the commands of `iommufd` share: their arguments, their output, their exit statuses. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { IommuError } from '../errors';

/** Exit statuses; docs/cli.md lists them. */
export const EXIT = {
  done: 0,
  /** The command could not do it; for `doctor`: there is a problem. */
  failed: 1,
  /** The arguments make no sense. */
  usage: 2,
  /** Something is in use (EBUSY); the message says which option goes on all the same. */
  busy: 3,
  /** Nobody reads the output: 128 and SIGPIPE, as a shell says of programs that this ends. */
  unread: 141,
} as const;

/** Where output goes. */
export interface Output {
  readonly out: (text: string) => void;
  readonly error: (text: string) => void;
}

/** Runs a command; its exit status, or undefined for one that ends by itself, with a status of its own. */
export type Run = (args: string[], output: Output) => number | undefined | Promise<number>;

type Options = NonNullable<ParseArgsConfig['options']>;

/** How a command is called. */
export interface Syntax<T extends Options> {
  readonly usage: string;
  readonly options: T;
  /** Fewest and most words beside the options. */
  readonly words: readonly [number, number];
}

const HELP = { help: { type: 'boolean', short: 'h' } } as const;

type Parsed<T extends Options> = ReturnType<
  typeof parseArgs<{ args: string[]; options: T & typeof HELP; allowPositionals: true }>
>;

/** Whether the arguments ask for JSON, be the others what they may. */
export function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).includes('--json');
}

/** Says that arguments make no sense, and how the command is used. Returns the exit status. */
export function refuseUsage(args: readonly string[], message: string, usage: string, output: Output): number {
  const [program, name] = usage.split(' ');
  const hint = `${program}${name === 'COMMAND' ? '' : ` ${name}`} --help says what there is`;
  if (wantsJson(args)) printJson(output, { error: { message, hint } });
  else output.error(`${message}\n\nusage: ${usage}`);
  return EXIT.usage;
}

/** The arguments of a command; or, where they ask for help or make no sense, the exit status once that is said. */
export function parseCommand<T extends Options>(
  { usage, options, words: [fewest, most] }: Syntax<T>,
  args: string[],
  output: Output,
): Parsed<T> | number {
  let parsed: Parsed<T>;
  try {
    parsed = parseArgs({ args, options: { ...options, ...HELP }, allowPositionals: true });
  } catch (problem) {
    return refuseUsage(args, problem instanceof Error ? problem.message : String(problem), usage, output);
  }
  if ('help' in parsed.values && parsed.values.help === true) {
    output.out(`usage: ${usage}`);
    return EXIT.done;
  }
  const { positionals } = parsed;
  if (positionals.length < fewest) return refuseUsage(args, 'an argument is missing', usage, output);
  if (positionals.length <= most) return parsed;
  return refuseUsage(args, `'${positionals[most]}' is one argument too many`, usage, output);
}

/** The code of one of Node's errors, such as 'ENOENT'. */
export function codeOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** A program that writes to process.stdout ends when nobody reads that any more, without a stack. */
export function endWhenUnread(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error) => {
      if (codeOf(error) !== 'EPIPE') throw error;
      process.exit(EXIT.unread);
    });
}

export function printJson({ out }: Output, value: unknown): void {
  out(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** Runs `action`; what the kernel or this package refuses is said, as JSON where that was asked for, without a stack. */
export function reportRefusals(json: boolean, output: Output, action: () => number): number {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof IommuError) && !(error instanceof TypeError)) throw error;
    const { message } = error;
    const { code, reason, hint } = error instanceof IommuError ? error : {};
    if (json) printJson(output, { error: { code, message, reason, hint } });
    else output.error(`iommufd: ${reason ?? message}${hint === undefined ? '' : `\n  ${hint}`}\n`);
    if (error instanceof TypeError) return EXIT.usage;
    return code === 'EBUSY' ? EXIT.busy : EXIT.failed;
  }
}

/** Rows as columns of text; the first row is the heads. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]) => row.map((cell, column) => cell.padEnd(widths[column])).join('  ');
  return rows.map((row) => `${line(row).trimEnd()}\n`).join('');
}
