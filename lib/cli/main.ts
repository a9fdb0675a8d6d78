#!/usr/bin/env node
/** The command `iommufd`. */
import { writeSync } from 'node:fs';
import { codeOf, EXIT, printJson, refuseUsage, wantsJson, type Output, type Run } from './command';

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
  devices: {
    summary: 'the PCI devices, and who has them',
    load: () => require('./devices') as typeof import('./devices'),
  },
  bind: {
    summary: 'give a device to VFIO, for programs',
    load: () => ({ run: loadBind().runBind }),
  },
  unbind: {
    summary: 'give a device back to its driver',
    load: () => ({ run: loadBind().runUnbind }),
  },
  build: {
    summary: 'build the native addon, for /dev/iommu',
    load: () => require('./build') as typeof import('./build'),
  },
  vm: {
    summary: 'run a command in a virtual machine that has an IOMMU',
    load: () => ({ run: loadPrograms().runVm }),
  },
  graph: {
    summary: "draw an Iommu's state",
    load: () => require('./graph/command') as typeof import('./graph/command'),
  },
  demo: {
    summary: 'see DMA, isolation and a page fault',
    load: () => ({ run: loadPrograms().runDemo }),
  },
};

function loadPrograms(): typeof import('./program') {
  return require('./program') as typeof import('./program');
}

function loadBind(): typeof import('./bind/command') {
  return require('./bind/command') as typeof import('./bind/command');
}

const usage = `iommufd COMMAND [ARGUMENT…]

${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(8)}  ${summary}\n`)
  .join('')}
iommufd COMMAND --help says more of each. Commands look at this machine; with IOMMUFD_BACKEND=simulated in the
environment, doctor, devices and demo are about a simulated one.
`;

const output: Output = { out: (text) => writeAll(1, text), error: (text) => writeAll(2, text) };

/** Milliseconds until a pipe is tried again that is full and would not have its writer wait. */
const PAUSE = 5;

/** All of it, before the process ends. */
function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE);
    }
  }
}

async function main([name, ...args]: string[]): Promise<number | undefined> {
  if (name !== undefined && Object.hasOwn(COMMANDS, name)) return COMMANDS[name].load().run(args, output);
  if (name === '--help' || name === '-h') {
    output.out(`usage: ${usage}`);
    return EXIT.done;
  }
  const message =
    name === undefined || name.startsWith('-') ? 'which command?' : `there is no command '${name}'`;
  return refuseUsage([name ?? '', ...args], message, usage, output);
}

/** What no command has an answer to: its stack is of use to people, also beside the JSON for programs. */
function fail(error: unknown, args: readonly string[]): number {
  const { message = String(error), stack = message } = error instanceof Error ? error : {};
  output.error(`${stack}\n`);
  if (wantsJson(args)) printJson(output, { error: { code: codeOf(error), message } });
  return EXIT.failed;
}

/** The exit status of an error. Where nobody reads what is said, as of a program that SIGPIPE ends. */
function statusOf(error: unknown, args: readonly string[]): number {
  if (codeOf(error) === 'EPIPE') return EXIT.unread;
  try {
    return fail(error, args);
  } catch {
    return EXIT.unread;
  }
}

const words = process.argv.slice(2);
main(words).then(
  (status) => {
    // A program that was run may have left timers and watches, which nobody waits for.
    if (status !== undefined) process.exit(status);
  },
  (error: unknown) => process.exit(statusOf(error, words)),
);
