#!/usr/bin/env node
/** The command `iommufd`. */
import { writeSync } from 'node:fs';
import type { Output, Run } from './command';

interface Command {
  readonly summary: string;
  /** Loads the command's own modules only: a command should start at once. */
  load(): { run: Run };
}

const COMMANDS: Readonly<Record<string, Command>> = {
  doctor: {
    summary: 'can programs have devices here, and if not, why not',
    load: () => require('./doctor/command') as typeof import('./doctor/command'),
  },
  graph: {
    summary: "draw an Iommu's state",
    load: () => require('./graph/command') as typeof import('./graph/command'),
  },
};

const usage = `iommufd COMMAND [ARGUMENT…]

${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(8)}  ${summary}\n`)
  .join('')}
iommufd COMMAND --help says more of each.
`;

const output: Output = { out: (text) => writeAll(1, text), error: (text) => writeAll(2, text) };

/** All of it, before the process ends. */
function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; done += writeSync(fd, bytes, done));
}

async function main([name, ...args]: string[]): Promise<number> {
  if (name !== undefined && Object.hasOwn(COMMANDS, name)) return COMMANDS[name].load().run(args, output);
  const asked = name === '--help' || name === '-h';
  output[asked ? 'out' : 'error'](`usage: ${usage}`);
  return asked ? 0 : 2;
}

// The program that was run may have left timers and watches, which nobody waits for.
main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  (error: unknown) => {
    output.error(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  },
);
