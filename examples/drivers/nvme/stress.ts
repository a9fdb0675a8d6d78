/** Writes seeded data to a disk in random pieces at random depths, flushes, reads it back in other pieces, and compares. */
import type { NvmeDriver } from './driver';

export interface StressOptions {
  /** To write, and to read back; rounded up to whole blocks. More than the disk has: it is written again. */
  readonly bytes: number;
  /** An integer. The same seed gives the same data in the same pieces. */
  readonly seed: number;
  /** Requests in flight at most. Default 64. */
  readonly depth?: number;
  /** Called after each round of requests. */
  readonly progress?: (written: number, verified: number) => void;
}

export interface StressReport {
  readonly written: number;
  readonly verified: number;
  readonly requests: number;
  readonly flushes: number;
}

interface Piece {
  readonly lba: number;
  readonly blocks: number;
}

/** Pieces of a round for each request in flight. */
const PIECES_PER_WORKER = 8;
/** Bytes of the largest piece. */
const LARGEST_PIECE = 512 * 1024;

/** xorshift32 (Marsaglia, "Xorshift RNGs", 2003). */
function next(state: number): number {
  let x = state;
  x ^= x << 13;
  x ^= x >>> 17;
  return x ^ (x << 5);
}

/** A state that differs in about half of its bits where one of the three differs in one. */
function mix(seed: number, pass: number, block: number): number {
  let x = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(pass + 1, 0xc2b2ae35) ^ block;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16) || 1;
}

class Stress {
  written = 0;
  verified = 0;
  requests = 0;
  flushes = 0;
  #state: number;

  constructor(
    readonly disk: NvmeDriver,
    readonly options: StressOptions,
  ) {
    this.#state = mix(options.seed, 0, 0x5eed);
  }

  async pass(number: number, blocks: number): Promise<void> {
    const { disk } = this;
    await this.#inRounds(this.#pieces(blocks), async (piece) => {
      const data = this.#data(number, piece);
      await disk.write(piece.lba, data);
      this.written += data.length;
    });
    await this.#flush();
    await this.#inRounds(this.#pieces(blocks), async (piece) => {
      const found = await disk.read(piece.lba, piece.blocks);
      const expected = this.#data(number, piece);
      if (Buffer.compare(found, expected) !== 0) throw this.#difference(piece, found, expected);
      this.verified += found.length;
    });
  }

  /** The contents of blocks: each has its own, in each pass. */
  #data(pass: number, { lba, blocks }: Piece): Uint8Array {
    const { blockSize } = this.disk;
    const words = new Uint32Array((blocks * blockSize) / 4);
    const perBlock = blockSize / 4;
    for (let block = 0; block < blocks; block++) {
      let state = mix(this.options.seed, pass, lba + block);
      const end = (block + 1) * perBlock;
      for (let i = block * perBlock; i < end; i++) words[i] = state = next(state);
    }
    return new Uint8Array(words.buffer);
  }

  #difference({ lba }: Piece, found: Uint8Array, expected: Uint8Array): Error {
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    const { blockSize } = this.disk;
    return new Error(
      `block ${lba + Math.floor(at / blockSize)}, byte ${at % blockSize}: ${found[at]} was read, ${expected[at]} was written`,
    );
  }

  #random(end: number): number {
    this.#state = next(this.#state);
    return Math.floor(((this.#state >>> 0) / 2 ** 32) * end);
  }

  /** Blocks 0 to `blocks` in pieces of random sizes, small ones as likely as large ones, in random order. */
  #pieces(blocks: number): Piece[] {
    const largest = Math.log2(LARGEST_PIECE / this.disk.blockSize + 1);
    const pieces: Piece[] = [];
    for (let lba = 0; lba < blocks;) {
      const size = Math.floor(2 ** ((this.#random(1000) / 1000) * largest));
      const piece = { lba, blocks: Math.min(size, blocks - lba) };
      pieces.push(piece);
      lba += piece.blocks;
    }
    for (let i = pieces.length - 1; i > 0; i--) {
      const other = this.#random(i + 1);
      [pieces[i], pieces[other]] = [pieces[other], pieces[i]];
    }
    return pieces;
  }

  /** Rounds of different depths, with a flush after some. */
  async #inRounds(pieces: Piece[], each: (piece: Piece) => Promise<void>): Promise<void> {
    const { depth = 64, progress } = this.options;
    for (let start = 0; start < pieces.length;) {
      const workers = 1 + this.#random(depth);
      const round = pieces.slice(start, start + workers * PIECES_PER_WORKER);
      start += round.length;
      const work = async () => {
        for (let piece = round.pop(); piece; piece = round.pop()) {
          this.requests++;
          await each(piece);
        }
      };
      await Promise.all(Array.from({ length: workers }, work));
      if (this.#random(4) === 0) await this.#flush();
      progress?.(this.written, this.verified);
    }
  }

  async #flush(): Promise<void> {
    this.flushes++;
    await this.disk.flush();
  }
}

/** Rejects with what the driver does, or where the data differs. What the disk had is lost. */
export async function stress(disk: NvmeDriver, options: StressOptions): Promise<StressReport> {
  for (const [name, value] of Object.entries({ depth: 1, ...options }))
    if (name !== 'progress' && !Number.isSafeInteger(value))
      throw new RangeError(`${name} must be an integer, not ${String(value)}`);
  const { depth = 1, bytes } = options;
  if (depth < 1 || bytes < 1) throw new RangeError('depth and bytes must be 1 or more');
  const run = new Stress(disk, options);
  for (let pass = 0; run.written < options.bytes; pass++) {
    const left = Math.ceil((options.bytes - run.written) / disk.blockSize);
    await run.pass(pass, Math.min(left, disk.blocks));
  }
  const { written, verified, requests, flushes } = run;
  return { written, verified, requests, flushes };
}
