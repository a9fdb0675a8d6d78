/** The two sides of a comparison: kernels that run sequences and say what happened. */
import { openKernel } from '../../lib/open-kernel';
import { Executor } from './executor';
import { Generator, type GeneratorOptions } from './generate/flavours';
import type { Call, CallRecord, Sequence } from './program';
import { openSimulated, type Opened, type Setup } from './simulated';

/** Sequences `first` to `first + count - 1` of a generator. */
export interface Batch {
  readonly generator: GeneratorOptions;
  readonly first: number;
  readonly count: number;
}

export interface Peer {
  readonly name: string;
  /** One hash per sequence of the batch. */
  hashes(batch: Batch): Promise<Uint32Array>;
  /** What each call of each sequence did. */
  run(sequences: readonly Sequence[]): Promise<CallRecord[][]>;
  close(): Promise<void>;
}

/** Told of each call made. */
export type Observer = (call: Call, result: number) => void;

const MILLISECOND = 1;

/** Waits without giving up the thread: a queue of the kernel's own is quick. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, MILLISECOND);
}

/** A kernel that answers in this process. */
export class LocalPeer implements Peer {
  readonly #executor: Executor;

  constructor(
    readonly name: string,
    { kernel, settle }: Opened,
    readonly observe?: Observer,
  ) {
    this.#executor = new Executor(kernel, settle);
  }

  hashes(batch: Batch): Promise<Uint32Array> {
    return Promise.resolve(this.hashNow(batch));
  }

  run(sequences: readonly Sequence[]): Promise<CallRecord[][]> {
    return Promise.resolve(this.runNow(sequences));
  }

  hashNow({ generator, first, count }: Batch): Uint32Array {
    const source = new Generator(generator);
    return Uint32Array.from({ length: count }, (_, i) =>
      this.#executor.hash(source.sequence(first + i), this.observe),
    );
  }

  runNow(sequences: readonly Sequence[]): CallRecord[][] {
    return sequences.map((sequence) => this.#executor.run(sequence));
  }

  close(): Promise<void> {
    this.#executor.close();
    return Promise.resolve();
  }
}

/** The simulated kernel. */
export function simulatedPeer(observe?: Observer, setup?: Setup): LocalPeer {
  return new LocalPeer('simulated', openSimulated(setup), observe);
}

/** The kernel this process runs on. */
export function linuxPeer(observe?: Observer): LocalPeer {
  return new LocalPeer('linux', { kernel: openKernel('linux'), settle: pause }, observe);
}
