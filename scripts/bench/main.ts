// `npm run bench -- [options]`: see options.ts.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { FIGURES, type Figure } from './figures';
import { HELP, parseOptions, UsageError, type BenchOptions } from './options';
import { missingOf, readmeLines, withTable } from './readme';
import { TrialError } from './result';
import { runFigures, type Outcome } from './run';
import { TABLE_HEAD, tableLines } from './table';

// From dist/scripts/bench, where this runs.
const README = join(__dirname, '../../../README.md');

function say(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function conditions({ runs, milliseconds, instructions }: BenchOptions): string {
  if (instructions) return `Node ${process.version}, in the VM, instructions; medians of ${runs} runs`;
  const processors = cpus();
  const model = processors[0]?.model ?? 'unknown processor';
  return `Node ${process.version}, ${processors.length} × ${model}; medians of ${runs} runs of ${milliseconds} ms`;
}

/** Those asked for, or all. Instructions are counted in the VM only. */
function chosen({ only, instructions }: BenchOptions): readonly Figure[] {
  const asked = only.length === 0 ? FIGURES : FIGURES.filter(({ name }) => only.includes(name));
  if (!instructions) return asked;
  const others = asked.filter(({ inVm }) => !inVm).map(({ name }) => name);
  if (only.length > 0 && others.length > 0)
    throw new UsageError(`--instructions is for figures of the VM, which ${others.join(', ')} is not`);
  return asked.filter(({ inVm }) => inVm).map((figure) => ({ ...figure, unit: 'instr.' }));
}

function list(options: BenchOptions, chosen: readonly Figure[]): void {
  const figures = chosen.map(({ name, about, unit, peers, inVm = false }) => {
    return { name, about, unit, peers: Object.keys(peers), inVm };
  });
  if (options.json) print(JSON.stringify(figures, null, 2));
  else
    for (const { name, about, peers } of figures)
      print(`${name.padEnd(24)}${about}; beside ${peers.join(', ')}`);
}

/** Status 1 where something failed; the rest is measured all the same. */
function measure(
  options: BenchOptions,
  figures: readonly Figure[],
  show: (figure: Figure, outcome: Outcome) => void,
): number {
  const leaveOut = (what: string, reason: string) => say(`left out: ${what}: ${reason}`);
  let status = 0;
  for (const [figure, outcome] of runFigures(figures, { ...options, leaveOut })) {
    if (outcome instanceof TrialError) {
      say(`failed: ${figure.name}: ${outcome.message}`);
      status = 1;
    } else show(figure, outcome);
  }
  return status;
}

/** Only a table that has everything goes into the README. */
function writeReadme(options: BenchOptions, outcomes: ReadonlyMap<Figure, Outcome>): number {
  const missing = FIGURES.map((figure) => missingOf(figure, outcomes.get(figure))).filter(
    (what) => what !== undefined,
  );
  if (missing.length > 0) {
    say(`README.md stays as it was: the table would lack ${missing.join('; ')}`);
    return 1;
  }
  const lines = readmeLines(conditions(options), outcomes);
  writeFileSync(README, withTable(readFileSync(README, 'utf8'), lines));
  return 0;
}

function bench(options: BenchOptions): number {
  const figures = chosen(options);
  if (options.list) {
    list(options, figures);
    return 0;
  }
  if (options.json) {
    const outcomes: Record<string, Outcome> = {};
    const status = measure(options, figures, ({ name }, outcome) => (outcomes[name] = outcome));
    print(JSON.stringify(outcomes, null, 2));
    return status;
  }
  print(`${conditions(options)}\n\n${TABLE_HEAD}`);
  const outcomes = new Map<Figure, Outcome>();
  const status = measure(options, figures, (figure, outcome) => {
    outcomes.set(figure, outcome);
    print(tableLines(figure.name, outcome).join('\n'));
  });
  return options.readme ? writeReadme(options, outcomes) || status : status;
}

function main(): number {
  try {
    const names = FIGURES.map(({ name }) => name);
    const options = parseOptions(process.argv.slice(2), names);
    if (options !== 'help') return bench(options);
    process.stdout.write(HELP);
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const { message } = error;
    if (process.argv.includes('--json')) print(JSON.stringify({ error: { message } }));
    else say(message);
    return 2;
  }
}

process.exitCode = main();
