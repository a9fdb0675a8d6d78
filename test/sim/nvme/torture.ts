/** Many workers that write and read a disk, and a model of what may be in its blocks: whatever happens, no read is wrong. */
import type { NvmeDriver } from '../../../examples/drivers/nvme/driver';
import { NvmeError } from '../../../examples/drivers/nvme/errors';
import type { Random } from '../../../lib/sim/random';
import { pattern } from './bench';

/** What may be in a block: what was written last, or any that failed since. */
export class Model {
  readonly #blocks = new Map<number, number[]>();

  static bytes(version: number): Uint8Array {
    return pattern(512, version).map((byte, i) => (i < 4 ? version >>> (8 * i) : byte));
  }

  possible(block: number): number[] {
    return this.#blocks.get(block) ?? [0];
  }

  /** A write ended: done, or nobody knows. */
  wrote(block: number, version: number, done: boolean): void {
    this.#blocks.set(block, done ? [version] : [...this.possible(block), version]);
  }

  allows(block: number, bytes: Uint8Array): boolean {
    return this.possible(block).some((version) =>
      version === 0 ? bytes.every((byte) => byte === 0) : Buffer.compare(bytes, Model.bytes(version)) === 0,
    );
  }
}

const WORKERS = 8;
const REGION = 64;

export interface Torture {
  readonly outcomes: Record<string, number>;
  readonly wrong: number;
}

/** Each worker has blocks of its own: writes, zeroes and reads them, and flushes, whatever happens. */
export async function torture(
  disk: NvmeDriver,
  model: Model,
  random: Random,
  rounds: number,
): Promise<Torture> {
  const outcomes: Record<string, number> = {};
  let wrong = 0;
  let version = 0;
  const note = (what: string) => {
    outcomes[what] = (outcomes[what] ?? 0) + 1;
  };
  const step = async (worker: number) => {
    const count = 1 + random.below(40);
    const first = worker * REGION + random.below(REGION - count);
    const blocks = Array.from({ length: count }, (_, i) => first + i);
    const kind = random.below(16);
    if (kind === 0) return note(await disk.flush().then(() => 'flushed', codeOf));
    if (kind < 8) {
      // Version 0 is zeros.
      const mine = kind === 1 ? 0 : ++version;
      const data = Buffer.concat(blocks.map(() => Model.bytes(mine)));
      const writing = mine === 0 ? disk.writeZeroes(first, count) : disk.write(first, data);
      const end = await writing.then(() => 'written', codeOf);
      for (const block of blocks) model.wrote(block, mine, end === 'written');
      note(end);
      return;
    }
    const found = await disk.read(first, count).catch(codeOf);
    note(typeof found === 'string' ? found : 'read');
    if (typeof found === 'string') return;
    wrong += blocks.filter((block, i) => !model.allows(block, found.subarray(512 * i, 512 * i + 512))).length;
  };
  const work = async (worker: number) => {
    for (let i = 0; i < rounds; i++) await step(worker);
  };
  await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
  return { outcomes, wrong };
}

/** Anything but an NvmeError is a bug of the driver. */
function codeOf(error: unknown): string {
  if (!(error instanceof NvmeError)) throw error;
  return error.code;
}

const ALL_BLOCKS = Array.from({ length: WORKERS * REGION }, (_, block) => block);

export async function wrongBlocks(disk: NvmeDriver, model: Model): Promise<number[]> {
  const all = await disk.read(0, WORKERS * REGION);
  return ALL_BLOCKS.filter((block) => !model.allows(block, all.subarray(512 * block, 512 * block + 512)));
}

/** Blocks that are wrong; those that the driver or the controller says are wrong are not among them. */
export async function wrongWithoutError(disk: NvmeDriver, model: Model): Promise<number[]> {
  const wrong: number[] = [];
  for (const block of ALL_BLOCKS) {
    const found = await disk.read(block, 1).catch(codeOf);
    const right = typeof found === 'string' ? ['EILSEQ', 'EIO'].includes(found) : model.allows(block, found);
    if (!right) wrong.push(block);
  }
  return wrong;
}
