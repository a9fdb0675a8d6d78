// One life of a guest: starts QEMU, hands it the job, passes the streams on, ends QEMU.
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { closeSync, openSync, truncateSync, unlinkSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { DISK_BYTES, FD, PROTECTED_BYTES } from './qemu';
import { MarkedStream } from './streams';
import { GuestMemory, serveTables, type TablesTaker } from './tables';

const MAX_STATUS_LINE = 64;
/** Milliseconds that QEMU gets to close its files. */
const GRACE = 5000;

/** How a guest ended. */
export type Outcome =
  | { kind: 'exit'; status: number }
  /** The guest or QEMU ended before the command did. */
  | { kind: 'died'; reason: string }
  | { kind: 'timeout' }
  /** Ended through `signal`. */
  | { kind: 'aborted' };

export interface Run {
  qemu: string;
  arguments: string[];
  /** Sent over the control channel; see job.ts. */
  job: Buffer;
  /** The end of each stream, as the guest writes it. */
  marker: Buffer;
  stdout: Writable;
  stderr: Writable;
  /** Gets the guest's console. */
  console: (chunk: Buffer) => void;
  /** Gets what QEMU itself says. */
  messages: (chunk: Buffer) => void;
  /** For a dump of tables: bytes of memory that the guest has, and who takes what it sends. */
  tables?: { readonly memory: number; readonly take: TablesTaker } | undefined;
  /** Milliseconds; 0 is no limit. */
  timeout: number;
  signal: AbortSignal;
}

/** A sparse file without a name: nothing of it is left behind, however the run ends. */
function openUnnamed(bytes: number): number {
  const path = join(tmpdir(), `iommufd-vm-${process.pid}.img`);
  const fd = openSync(path, 'wx+', 0o600);
  truncateSync(path, bytes);
  unlinkSync(path);
  return fd;
}

function start(run: Run, memory: GuestMemory | undefined): ChildProcess {
  const disk = openUnnamed(DISK_BYTES + PROTECTED_BYTES);
  try {
    // Node's pipes are socket pairs: QEMU takes its ends as connected socket character devices.
    const stdio: StdioOptions = ['ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', disk];
    if (memory) stdio.push(memory.fd, 'pipe');
    return spawn(run.qemu, run.arguments, { stdio });
  } finally {
    closeSync(disk);
  }
}

function channel(qemu: ChildProcess, fd: number): Socket {
  return qemu.stdio[fd] as Socket;
}

/** A stream of the guest, passed to one of ours no faster than ours takes it. */
class Forward {
  readonly #stream: MarkedStream;
  #dropped = false;

  constructor(
    readonly source: Socket,
    target: Writable,
    marker: Buffer,
    ended: () => void,
  ) {
    this.#stream = new MarkedStream(marker, (bytes) => {
      if (this.#dropped || target.write(bytes)) return;
      source.pause();
      target.once('drain', () => source.resume());
    });
    source.on('data', (chunk: Buffer) => {
      this.#stream.push(chunk);
      if (this.#stream.ended) ended();
    });
  }

  get ended(): boolean {
    return this.#stream.ended;
  }

  flush(): void {
    this.#stream.flush();
  }

  /** Waits for our side no more, which may never take another byte. */
  drop(): void {
    this.#dropped = true;
    this.source.resume();
  }
}

/** The exit status in what the guest has said on the control channel, once the line is complete. */
export function parseStatus(text: string): number | undefined {
  const match = /^exit (\d{1,3})\n/.exec(text);
  return match ? Number(match[1]) : undefined;
}

/**
 * Runs a guest to its end. QEMU is gone when the promise settles.
 * Rejects only when QEMU cannot be started.
 */
export function runGuest(run: Run): Promise<Outcome> {
  const memory = run.tables && new GuestMemory(openUnnamed(run.tables.memory), run.tables.memory);
  const qemu = start(run, memory);
  return new Promise((resolve, reject) => {
    let outcome: Outcome | undefined;
    let control = '';
    let killer: NodeJS.Timeout | undefined;
    const end = (reached: Outcome) => {
      outcome ??= reached;
      if (outcome.kind !== 'exit') for (const stream of [stdout, stderr]) stream.drop();
      qemu.kill('SIGTERM');
      killer ??= setTimeout(() => qemu.kill('SIGKILL'), GRACE);
    };
    const check = () => {
      const status = parseStatus(control);
      if (status !== undefined && stdout.ended && stderr.ended) end({ kind: 'exit', status });
    };
    const stdout = new Forward(channel(qemu, FD.stdout), run.stdout, run.marker, check);
    const stderr = new Forward(channel(qemu, FD.stderr), run.stderr, run.marker, check);
    channel(qemu, FD.control).on('data', (chunk: Buffer) => {
      control = (control + chunk.toString('latin1')).slice(0, MAX_STATUS_LINE);
      check();
    });
    channel(qemu, FD.control).write(run.job);
    channel(qemu, FD.console).on('data', run.console);
    for (const fd of [1, 2]) channel(qemu, fd).on('data', run.messages);
    if (run.tables && memory) serveTables(channel(qemu, FD.tables), memory, run.tables.take);
    // A socket of a QEMU that died early: its end is told by 'close'.
    const sockets = [FD.control, FD.stdout, FD.stderr, FD.console, ...(run.tables ? [FD.tables] : [])];
    for (const fd of sockets) channel(qemu, fd).on('error', () => {});

    const timer = run.timeout > 0 ? setTimeout(end, run.timeout, { kind: 'timeout' }) : undefined;
    const abort = () => end({ kind: 'aborted' });
    run.signal.addEventListener('abort', abort);
    const settle = () => {
      clearTimeout(timer);
      clearTimeout(killer);
      memory?.close();
      run.signal.removeEventListener('abort', abort);
    };
    qemu.once('error', (error) => {
      settle();
      reject(error);
    });
    qemu.once('close', (code, signal) => {
      settle();
      stdout.flush();
      stderr.flush();
      const how = signal === null ? `exit status ${code}` : `signal ${signal}`;
      resolve(outcome ?? { kind: 'died', reason: `QEMU ended with ${how}` });
    });
  });
}
