/**
 * Reads and writes of a namespace with end-to-end data protection. What is read is checked here, too, after it was copied from
 * the memory that the device may still write to; what is written is read back, because a command may have been taken for another
 * one that succeeds without writing. Whatever is wrong is done again, and then an error.
 */
import type { DmaSlice } from 'iommufd';
import { commands } from './commands';
import type { Engine, RunOptions } from './engine';
import { NvmeError } from './errors';
import type { Memory, MemoryRange } from './memory';
import { type Protection, TUPLE } from './protection';
import type { Command } from './queue';
import type { Limits } from './request';

/** How often blocks are read, or written and read back, that are not right. */
const ATTEMPTS = 4;

export interface ProtectedOptions {
  /** The device's name, for errors. */
  readonly name: string;
  readonly namespace: number;
  /** Read what was written. */
  readonly verify: boolean;
}

/** The parts of a slice: data, the metadata of as many blocks, and of one more, which there must never be. */
interface Parts {
  readonly data: MemoryRange;
  readonly metadata: MemoryRange;
  readonly dataBytes: Uint8Array;
  readonly metadataBytes: Uint8Array;
}

export class ProtectedBlocks {
  readonly #engine: Engine;
  readonly #memory: Memory;
  readonly #protection: Protection;
  readonly #options: ProtectedOptions;

  constructor(engine: Engine, memory: Memory, protection: Protection, options: ProtectedOptions) {
    this.#engine = engine;
    this.#memory = memory;
    this.#protection = protection;
    this.#options = options;
  }

  /** Blocks of one command, so that its data and metadata have room in `bytes` bytes. */
  static blocksOf(bytes: number, blockSize: number): number {
    return Math.floor((bytes - TUPLE) / (blockSize + TUPLE));
  }

  /** Reads blocks into `into`, all of it. Rejects with NvmeError, or the signal's reason. */
  async read(first: number, into: Uint8Array, limits: Limits): Promise<void> {
    const blocks = into.length / this.#protection.blockSize;
    const { name, namespace } = this.#options;
    const command = this.#protection.checked(commands.read(namespace, first, blocks), first);
    const what = `${name}: read of ${blocks} blocks at ${first}`;
    using slice = await this.#engine.acquire(what, this.#memory.fromDevice, this.#sizeOf(blocks), limits);
    const parts = this.#partsOf(slice, blocks);
    let wrong = 'there is nothing that two reads agree on';
    let before: Uint8Array | undefined;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      this.#protection.spoil(parts.metadataBytes);
      await this.#run(what, command, { limits, ...parts });
      // All of it, first: the device may write to the slice still.
      const found = slice.bytes.slice();
      const { problem, unwritten } = this.#protection.check(
        found.subarray(0, into.length),
        found.subarray(into.length),
        first,
      );
      // Unwritten blocks may be those of another namespace: two commands are not likely to go wrong the same way.
      const believed = !unwritten || (before && Buffer.compare(before, found) === 0);
      if (problem === undefined && believed) return into.set(found.subarray(0, into.length));
      if (problem !== undefined) {
        wrong = problem;
        this.#engine.counters.mismatches++;
      } else before = found;
    }
    throw new NvmeError('EILSEQ', `${what}: ${wrong}, ${ATTEMPTS} times`);
  }

  /** Writes whole blocks, which nobody else writes meanwhile. Rejects with NvmeError, or the signal's reason. */
  async write(first: number, bytes: Uint8Array, limits: Limits): Promise<void> {
    let problem: unknown;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      await this.#writeOnce(first, bytes, limits);
      if (!this.#options.verify) return;
      problem = await this.#difference(first, bytes, limits);
      if (problem === undefined) return;
      this.#engine.counters.mismatches++;
    }
    throw problem;
  }

  async #writeOnce(first: number, bytes: Uint8Array, limits: Limits): Promise<void> {
    const blocks = bytes.length / this.#protection.blockSize;
    const { name, namespace } = this.#options;
    const command = this.#protection.checked(commands.write(namespace, first, blocks), first);
    const what = `${name}: write of ${blocks} blocks at ${first}`;
    using slice = await this.#engine.acquire(what, this.#memory.toDevice, this.#sizeOf(blocks), limits);
    const parts = this.#partsOf(slice, blocks);
    parts.dataBytes.set(bytes);
    // Where the controller takes more blocks than there are, the next one's information is wrong.
    this.#protection.spoil(parts.metadataBytes);
    this.#protection.seal(parts.dataBytes, parts.metadataBytes, first);
    try {
      await this.#run(what, command, { limits, ...parts });
    } finally {
      // What somebody takes for a command that names this memory writes nothing any more.
      if (!slice.freed) this.#protection.spoil(parts.metadataBytes);
    }
  }

  /** Reads back: undefined where it is what was written. */
  async #difference(first: number, bytes: Uint8Array, limits: Limits): Promise<unknown> {
    const found = new Uint8Array(bytes.length);
    try {
      await this.read(first, found, limits);
    } catch (error) {
      // Other data may be there, with tags of somebody else.
      if (error instanceof NvmeError && (error.code === 'EILSEQ' || error.code === 'EIO')) return error;
      throw error;
    }
    const at = found.findIndex((byte, i) => byte !== bytes[i]);
    if (at < 0) return undefined;
    const { blockSize } = this.#protection;
    return new NvmeError(
      'EILSEQ',
      `${this.#options.name}: write at ${first}: byte ${at % blockSize} of block ${first + Math.floor(at / blockSize)} ` +
        `was read back as ${found[at]}, not ${bytes[at]}`,
    );
  }

  async #run(what: string, command: Command, options: RunOptions): Promise<void> {
    await this.#engine.run(what, command, { ...options, insist: true });
  }

  #sizeOf(blocks: number): number {
    return blocks * this.#protection.blockSize + (blocks + 1) * TUPLE;
  }

  #partsOf({ iova, bytes }: DmaSlice, blocks: number): Parts {
    const length = blocks * this.#protection.blockSize;
    return {
      data: { iova, length },
      metadata: { iova: iova + BigInt(length), length: blocks * TUPLE },
      dataBytes: bytes.subarray(0, length),
      metadataBytes: bytes.subarray(length),
    };
  }
}
