#!/usr/bin/env node
/** The command `iommufd`. */
import { writeSync } from 'node:fs';
import { graph, graphUsage, type Output } from './graph/command';

const COMMANDS: Readonly<Record<string, (args: string[], output: Output) => Promise<number>>> = { graph };

const output: Output = { out: (text) => writeAll(1, text), error: (text) => writeAll(2, text) };

/** All of it, before the process ends. */
function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; done += writeSync(fd, bytes, done));
}

async function main([name, ...args]: string[]): Promise<number> {
  if (name !== undefined && Object.hasOwn(COMMANDS, name)) return COMMANDS[name](args, output);
  const asked = name === '--help' || name === '-h';
  output[asked ? 'out' : 'error'](`usage: ${graphUsage}`);
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
