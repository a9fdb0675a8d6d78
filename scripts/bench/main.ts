// `npm run bench -- [options]`: see options.ts.
import { cpus } from 'node:os';
import { FIGURES, type Figure } from './figures';
import { HELP, parseOptions, UsageError, type BenchOptions } from './options';
import { TrialError } from './result';
import { runFigure, type Outcome } from './run';
import { TABLE_HEAD, tableLines } from './table';

function say(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function conditions({ runs, milliseconds }: BenchOptions): string {
  const processors = cpus();
  const model = processors[0]?.model ?? 'unknown processor';
  return `Node ${process.version}, ${processors.length} × ${model}; medians of ${runs} runs of ${milliseconds} ms`;
}

function list(): void {
  for (const { name, about, peers } of FIGURES) {
    print(`${name.padEnd(24)}${about}; beside ${Object.keys(peers).join(', ')}`);
  }
}

function measure(options: BenchOptions, show: (figure: Figure, outcome: Outcome) => void): number {
  let status = 0;
  for (const figure of FIGURES) {
    if (options.only.length > 0 && !options.only.includes(figure.name)) continue;
    try {
      const leaveOut = (what: string, reason: string) => say(`left out: ${what}: ${reason}`);
      const outcome = runFigure(figure, { ...options, leaveOut });
      if (outcome !== undefined) show(figure, outcome);
    } catch (error) {
      if (!(error instanceof TrialError)) throw error;
      say(`failed: ${figure.name}: ${error.message}`);
      status = 1;
    }
  }
  return status;
}

function bench(options: BenchOptions): number {
  if (options.list) {
    list();
    return 0;
  }
  if (options.json) {
    const outcomes: Record<string, Outcome> = {};
    const status = measure(options, ({ name }, outcome) => (outcomes[name] = outcome));
    print(JSON.stringify(outcomes, null, 2));
    return status;
  }
  print(`${conditions(options)}\n\n${TABLE_HEAD}`);
  return measure(options, ({ name }, outcome) => print(tableLines(name, outcome).join('\n')));
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
    say(error.message);
    return 2;
  }
}

process.exitCode = main();
