// `iommufd vm [options] COMMAND…`, `npm run vm -- [options] COMMAND…`: see options.ts.
import { randomBytes } from 'node:crypto';
import { existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import { findKernel, findModuleFiles, findModules, findQemu, SetupError } from './find';
import { jobMessage, passedEnvironment } from './job';
import { HELP, memoryBytes, parseOptions, UsageError, wantsJson, type VmOptions } from './options';
import { qemuArguments } from './qemu';
import { runGuest, type Outcome, type Run } from './run';
import { Collector, Log } from './streams';
import type { GuestMemory } from './tables';

/** The command line makes no sense. */
const USAGE = 2;
const TIMED_OUT = 124;
const FAILED = 125;
const CONSOLE_LINES = 30;
/** QEMU names its reason first; a dump of registers may follow. */
const QEMU_LINES = 5;

interface Logs {
  readonly console: Log;
  readonly qemu: Log;
}

function say(text: string): void {
  process.stderr.write(`vm: ${text}\n`);
}

function writableFolder(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found?.isDirectory()) throw new SetupError(`--share ${path}: no such folder`);
  return realpathSync(resolve(path));
}

/** A dump from before would look like this run's. */
function removeOld(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    throw new SetupError(`--dump-tables ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function keep(log: Log, show: boolean): (chunk: Buffer) => void {
  return (chunk) => {
    log.push(chunk);
    if (show) process.stderr.write(chunk.toString('latin1').replaceAll('\r', ''));
  };
}

/** Where COMMAND's output goes. */
type Streams = Pick<Run, 'stdout' | 'stderr'>;

function prepare(options: VmOptions, streams: Streams, logs: Logs, signal: AbortSignal): Run {
  const shared = { ...options, shares: options.shares.map(writableFolder) };
  const kernel = findKernel(options.kernel, process.env);
  const modules = findModules(kernel);
  const marker = randomBytes(16).toString('hex');
  const environment = passedEnvironment(process.env);
  if (modules !== undefined) environment.IOMMUFD_VM_MODULES = modules;
  // From dist/scripts/vm, where this runs, to scripts/vm.
  const source = realpathSync(join(__dirname, '../../../scripts/vm'));
  const init = join(source, 'init.sh');
  const { dumpTables } = options;
  if (dumpTables !== undefined) environment.IOMMUFD_VM_DUMP_TABLES = join(source, 'dump-tables.sh');
  return {
    qemu: findQemu(options.qemu, process.env),
    arguments: qemuArguments({ kernel, init, options: shared }),
    job: jobMessage({
      ...{ options: shared, folder: process.cwd(), environment, marker },
      modules: findModuleFiles(kernel, options.modules),
    }),
    marker: Buffer.from(`\0${marker}`),
    ...streams,
    console: keep(logs.console, options.verbose),
    messages: keep(logs.qemu, options.verbose),
    tables:
      dumpTables === undefined
        ? undefined
        : {
            memory: memoryBytes(options.memory),
            take: (files, memory) => takeDump(files, memory, dumpTables),
          },
    timeout: options.timeout * 1000,
    signal,
  };
}

/** Loaded when it is needed: it brings the model of the IOMMU along. */
function takeDump(files: ReadonlyMap<string, string>, memory: GuestMemory, path: string): void {
  const { takeDump: take } = require('../tables/take') as typeof import('../tables/take');
  take(files, memory, path);
}

function showLogs(logs: Logs): void {
  const console = logs.console.last(CONSOLE_LINES);
  if (console.length > 0) say(`the last lines of the console:\n${console.join('\n')}`);
  const qemu = logs.qemu.first(QEMU_LINES);
  if (qemu.length > 0) say(`QEMU says:\n${qemu.join('\n')}`);
}

function exitStatus(outcome: Outcome, options: VmOptions, logs: Logs, signalled: number): number {
  switch (outcome.kind) {
    case 'exit':
      return outcome.status;
    case 'timeout':
      showLogs(logs);
      say(`the command did not end within ${options.timeout} seconds (--timeout): guest ended`);
      return TIMED_OUT;
    case 'died':
      showLogs(logs);
      say(`the guest ended before the command did: ${outcome.reason}`);
      return FAILED;
    case 'aborted':
      return 128 + signalled;
  }
}

async function run(options: VmOptions): Promise<number> {
  const logs = { console: new Log(), qemu: new Log() };
  const aborter = new AbortController();
  let signalled = 0;
  const stop = (name: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGPIPE') => {
    signalled ||= constants.signals[name];
    aborter.abort();
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, stop);
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => stop('SIGPIPE'));
  const { dumpTables } = options;
  if (dumpTables !== undefined) removeOld(dumpTables);
  const collected = options.json ? { stdout: new Collector(), stderr: new Collector() } : undefined;
  const outcome = await runGuest(prepare(options, collected ?? process, logs, aborter.signal));
  const status = exitStatus(outcome, options, logs, signalled);
  if (collected) {
    const [stdout, stderr] = [collected.stdout.text(), collected.stderr.text()];
    process.stdout.write(`${JSON.stringify({ outcome: outcome.kind, status, stdout, stderr })}\n`);
  }
  if (status !== 0 || dumpTables === undefined || existsSync(dumpTables)) return status;
  say('--dump-tables: the command did not run $IOMMUFD_VM_DUMP_TABLES, so there is no dump');
  return FAILED;
}

/** Without a guest there is nothing to end first. */
function endWhenUnread(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', () => process.exit(128 + constants.signals.SIGPIPE));
}

/** Says why there is no run, to programs as JSON. */
function refuse(error: unknown, json: boolean): number {
  const isExpected = error instanceof UsageError || error instanceof SetupError;
  const { message = String(error), stack = message } = error instanceof Error ? error : {};
  // What nobody has thought of: the stack is of use to people.
  if (!isExpected || !json) say(isExpected ? message : stack);
  if (json) process.stdout.write(`${JSON.stringify({ error: { message } })}\n`);
  return error instanceof UsageError ? USAGE : FAILED;
}

async function main(args: string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options !== 'help') return await run(options);
    endWhenUnread();
    process.stdout.write(HELP);
    return 0;
  } catch (error) {
    endWhenUnread();
    return refuse(error, wantsJson(args));
  }
}

void main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
});
