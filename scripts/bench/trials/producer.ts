/** The producer in C (ring-producer.c), beside a trial: through a ring, or a pipe. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FaultConsumer } from '../../../lib';
import { EFD_NONBLOCK } from '../../../lib/kernel';
import { LinuxKernel } from '../../../lib/linux/kernel';
import { FAULT_SOURCE_BYTES, RING_FAULTS, ringBytes } from '../../../lib/rings/layout';
import { Ring } from '../../../lib/rings/ring';
import { compile } from '../compile';
import type { Unavailable } from '../result';

/** As in ring.c. */
const SLOTS = 4096;
export const SLICE = 1 << 16;
const PAGE_SHIFT = 12;

/** A producer that ended by itself has found something wrong. */
function watchOver(producer: ChildProcess): void {
  producer.on('exit', (status, signal) => {
    process.stderr.write(`the producer ended: ${status ?? signal}\n`);
    process.exit(1);
  });
}

/** A producer that fills a ring, and the consumer of it; or why there can be none. */
export function produceIntoRing(way: 'fast' | 'slow'): FaultConsumer | Unavailable {
  const made = startProducer(way);
  return 'unavailable' in made ? made : FaultConsumer.open(made.share);
}

/** The same without a consumer: the ring, and `listen`, whose callback the event loop makes when the doorbell rings. */
export function produceForLoop() {
  const made = startProducer('slow');
  if ('unavailable' in made) return made;
  const { kernel, ring, share } = made;
  return { ring, listen: (callback: () => void) => kernel.rings.watchCounter(share.doorbell, callback) };
}

function startProducer(way: 'fast' | 'slow') {
  const kernel = LinuxKernel.load();
  if ('reason' in kernel) return { unavailable: kernel.reason };
  const program = compile('ring-producer');
  if (typeof program !== 'string') return program;
  const shape = {
    kind: RING_FAULTS,
    sourceBytes: FAULT_SOURCE_BYTES,
    records: SLOTS,
    responses: SLOTS,
  } as const;
  const length = ringBytes(shape);
  const memory = kernel.allocate(length, { memfd: true });
  if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
  const ring = Ring.create(memory.bytes.buffer, shape);
  const [doorbell, kick] = [kernel.eventfd(0, EFD_NONBLOCK), kernel.eventfd(0, 0)];
  watchOver(spawn(program, [way], { stdio: ['ignore', 'ignore', 'inherit', memory.fd, doorbell, kick] }));
  return { kernel, ring, share: { kind: 'memfd', memfd: memory.fd, length, doorbell, kick } as const };
}

/** A producer that writes the kernel's records into a pipe: its end to read from. */
export function produceIntoPipe(): number | Unavailable {
  const program = compile('ring-producer');
  if (typeof program !== 'string') return program;
  // What spawn() calls a pipe is a socket.
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-bench-'));
  const path = join(folder, 'pipe');
  const made = spawnSync('mkfifo', [path]);
  if (made.status !== 0) throw new Error(`mkfifo: ${made.error?.message ?? made.status}`);
  const writer = openSync(path, 'r+');
  const reader = openSync(path, 'r');
  rmSync(folder, { recursive: true });
  watchOver(spawn(program, ['pipe'], { stdio: ['ignore', writer, 'inherit'] }));
  closeSync(writer);
  return reader;
}

/** Latencies that are taken at least. */
const LEAST = 100;
/** Not counted: the JIT has not seen the path often enough, of many short functions that a wake-up calls once. */
const COLD = 6000;

/** How long each of a consumer's wake-ups took, in nanoseconds. */
export class Latencies {
  readonly #start = performance.now();
  readonly #all: number[] = [];

  constructor(readonly milliseconds: number) {}

  add(latency: number): void {
    this.#all.push(latency);
  }

  get done(): boolean {
    return performance.now() - this.#start >= 4 * this.milliseconds && this.#all.length >= COLD + LEAST;
  }

  /** The median, or the 99th percentile. */
  at(which: string): number {
    const sorted = this.#all.slice(COLD).sort((a, b) => a - b);
    return sorted[Math.trunc((which === 'p99' ? 0.99 : 0.5) * sorted.length)];
  }
}

/** Checks that every fault comes once and in order, and takes the time of each slice of them. */
export class Meter {
  readonly #milliseconds = Number(process.argv[process.argv.length - 1]);
  readonly #start = performance.now();
  #before = this.#start;
  #samples: number[] = [];
  #warm = false;
  #expected = 0;
  #next: number;

  constructor(readonly slice: number) {
    this.#next = slice;
  }

  /** The lower half of the address of a fault that was seen. */
  see(addressLow: number): void {
    const page = addressLow >>> PAGE_SHIFT;
    if (page !== this.#expected) throw new Error(`fault ${page}, not ${this.#expected}`);
    this.#expected = (page + 1) & 0xfffff;
    if (--this.#next === 0) this.#turn();
  }

  #turn(): void {
    const now = performance.now();
    this.#samples.push(((now - this.#before) * 1e6) / this.slice);
    this.#before = now;
    this.#next = this.slice;
    const elapsed = now - this.#start;
    // As long to warm up as in the peers, and until the JIT has had its time.
    if (!this.#warm && elapsed > this.#milliseconds + 300) {
      this.#warm = true;
      this.#samples = [];
    } else if (elapsed > 2 * this.#milliseconds + 300 && this.#samples.length >= 3) this.#finish();
  }

  #finish(): never {
    const sorted = this.#samples.sort((a, b) => a - b);
    process.stdout.write(`${JSON.stringify({ value: sorted[sorted.length >> 1] })}\n`);
    process.exit(0);
  }
}
