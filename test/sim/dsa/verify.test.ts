/** Operations that are verified, while bits flip on the way: right, or a clear error, and nothing in between. */
import { type Operation, operations } from '../../../examples/drivers/dsa/descriptor';
import { DsaError } from '../../../examples/drivers/dsa/errors';
import { verified } from '../../../examples/drivers/dsa/verify';
import { crc32c } from '../../../lib/sim/devices/dsa/crc';
import type { FaultOptions } from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';
import { closeAll, LENGTH, seed, setUp, watchRequests } from './driver-rig';

afterEach(closeAll);
const SEEDS = Number(process.env['FAULT_SEEDS'] ?? 12);

type Rig = Awaited<ReturnType<typeof setUp>>;
const crcOf = (bytes: Uint8Array) => crc32c(bytes, 0, { plainCrc: false, plainData: false });
const fillOf = (length: number, pattern: bigint) =>
  Uint8Array.from({ length }, (_, i) => Number((pattern >> BigInt(8 * (i % 8))) & 0xffn));

/** An operation on the rig's memory, and whether its result and the memory are what they should be. */
interface Trial {
  readonly operation: Operation;
  right(result: number | undefined): boolean;
}

const same = (one: Uint8Array, other: Uint8Array) => Buffer.compare(one, other) === 0;

/** One of each kind, at random places. `to` is new memory each time; `from` stays, but for what overlaps. */
const trials: Record<string, (rig: Rig, random: Random) => Trial> = {
  move: ({ from, to }, random) => {
    const [at, length] = [random.below(1000), 1 + random.below(LENGTH - 1000)];
    to.bytes.fill(0);
    const expected = from.bytes.slice(at, at + length);
    const operation = operations.move(from.iova + BigInt(at), to.iova, length);
    return { operation, right: () => same(to.bytes.subarray(0, length), expected) };
  },
  'move that overlaps': ({ to }, random) => {
    const [at, length] = [random.below(500), 1000 + random.below(LENGTH - 2000)];
    for (let i = 0; i < LENGTH; i++) to.bytes[i] = random.below(256);
    const [source, destination] = random.below(2) ? [at, 500] : [500, at];
    const expected = to.bytes.slice().copyWithin(destination, source, source + length);
    const operation = operations.move(to.iova + BigInt(source), to.iova + BigInt(destination), length);
    return { operation, right: () => same(to.bytes, expected) };
  },
  fill: ({ to }, random) => {
    const length = 1 + random.below(LENGTH);
    const pattern = (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));
    to.bytes.fill(0);
    const operation = operations.fill(to.iova, length, pattern);
    return { operation, right: () => same(to.bytes.subarray(0, length), fillOf(length, pattern)) };
  },
  compare: ({ from, to }, random) => {
    to.bytes.set(from.bytes);
    const differs = random.below(2) ? random.below(LENGTH) : undefined;
    if (differs !== undefined) to.bytes[differs] ^= 1 << random.below(8);
    const operation = operations.compare(from.iova, to.iova, LENGTH);
    return { operation, right: (result) => result === differs };
  },
  CRC: ({ from }, random) => {
    const length = 1 + random.below(LENGTH);
    const expected = crcOf(from.bytes.slice(0, length));
    return { operation: operations.crc(from.iova, length), right: (result) => result === expected };
  },
};
const kinds = Object.keys(trials);

async function endOf(run: Promise<number | undefined>, { right }: Trial): Promise<string> {
  try {
    return right(await run) ? 'right' : 'wrong';
  } catch (error) {
    return error instanceof DsaError ? error.code : String(error);
  }
}

describe.each(kinds)('%s', (kind) => {
  test('one flipped bit, in whichever access it is, is put right', async () => {
    const rig = await setUp();
    const injected = rig.faults();
    let left = 0;
    watchRequests(injected, () => --left === 0 && injected.once('corruptData'));
    const random = new Random(seed);
    for (let nth = 1; nth <= 30; nth++) {
      const trial = trials[kind](rig, random);
      left = nth;
      const end = await endOf(rig.dsa.run(trial.operation, { verify: true, timeout: 200 }), trial);
      // A completion record whose status became 0 is waited for in vain; a copy that has overwritten its source stays wrong.
      const allowed =
        kind === 'move that overlaps' ? ['right', 'EBADMSG', 'ETIMEDOUT'] : ['right', 'ETIMEDOUT'];
      expect([seed, nth, end, allowed.includes(end)]).toEqual([seed, nth, end, true]);
      injected.stop();
    }
    expect([seed, injected.log.length > 2]).toEqual([seed, true]);
  });

  test('bits that flip all the time end in an error', async () => {
    const rig = await setUp();
    const injected = rig.faults({ corruptData: 1 });
    const trial = trials[kind](rig, new Random(seed));
    const end = await endOf(rig.dsa.run(trial.operation, { verify: true, timeout: 1000 }), trial);
    expect([seed, ['EBADMSG', 'EIO', 'ETIMEDOUT', 'EFAULT'].includes(end), end]).toEqual([seed, true, end]);
    injected.stop();
    await rig.works();
  });
});

/** Random operations under random faults; how they end. */
async function torture(options: Partial<FaultOptions>, run: number): Promise<string[]> {
  const rig = await setUp({ pasid: 7 });
  const injected = rig.faults({ ...options, seed: run });
  const random = new Random(run);
  const ends: string[] = [];
  for (let i = 0; i < 30; i++) {
    const kind = kinds[random.below(kinds.length)];
    const trial = trials[kind](rig, random);
    const limits = { verify: true, timeout: 300 };
    const done = random.below(2)
      ? rig.dsa.run(trial.operation, limits)
      : rig.dsa.batch([operations.drain(), trial.operation], limits).then(([, result]) => result);
    const end = await endOf(done, trial);
    expect([run, i, kind, end]).not.toEqual([run, i, kind, 'wrong']);
    ends.push(end);
  }
  injected.stop();
  await rig.works();
  return ends;
}

test.each(Array.from({ length: SEEDS }, (_, i) => seed + i))(
  'random faults of all kinds corrupt nothing unnoticed (seed %s)',
  async (run) => {
    const ends = await torture({ dropInterrupt: 0.1, dmaError: 0.01, delay: 0.1, corruptData: 0.03 }, run);
    const known = ['right', 'EIO', 'EFAULT', 'EBADMSG', 'ETIMEDOUT', 'ECANCELED'];
    expect([run, [...new Set(ends)].filter((end) => !known.includes(end))]).toEqual([run, []]);
    expect([run, ends.filter((end) => end === 'right').length > 10]).toEqual([run, true]);
  },
);

test('without verification flipped bits do go unnoticed: the tests above would see them', async () => {
  const rig = await setUp();
  rig.faults({ corruptData: 0.2 });
  const random = new Random(seed);
  const ends: string[] = [];
  for (let i = 0; i < 40; i++) {
    const trial = trials['move'](rig, random);
    ends.push(await endOf(rig.dsa.run(trial.operation, { timeout: 200 }), trial));
  }
  expect([seed, ends]).toEqual([seed, expect.arrayContaining(['wrong'])]);
});

describe('verified(), by itself', () => {
  const move = operations.move(0n, 0x1000n, 16);
  /** Results in turn: errors are thrown. */
  const scripted = (...results: (number | undefined | Error)[]) => {
    const asked: number[] = [];
    const run = async ({ opcode }: Operation) => {
      asked.push(opcode);
      const result = results.shift();
      if (result instanceof Error) throw result;
      return result;
    };
    return { asked, run, left: () => results.length };
  };

  test('a copy is done again until it is equal, four times at most', async () => {
    const { run, asked } = scripted(undefined, 3, undefined, undefined);
    expect(await verified('dsa', move, run)).toBeUndefined();
    expect(asked).toEqual([3, 5, 3, 5]);
    const never = scripted(...Array.from({ length: 8 }, (_, i) => (i % 2 ? 3 : undefined)));
    await expect(verified('dsa', move, never.run)).rejects.toMatchObject({ code: 'EBADMSG' });
    expect(never.left()).toBe(0);
  });

  test('a result counts when it comes twice in a row', async () => {
    const crc = operations.crc(0n, 16);
    expect(await verified('dsa', crc, scripted(1, 2, 2).run)).toBe(2);
    await expect(verified('dsa', crc, scripted(1, 2, 3, 1).run)).rejects.toMatchObject({ code: 'EBADMSG' });
  });

  test('an error that would come again is not waited for', async () => {
    const gone = new DsaError('ENODEV', 'gone');
    const { run, asked } = scripted(gone);
    await expect(verified('dsa', move, run)).rejects.toBe(gone);
    expect(asked).toEqual([3]);
  });

  test('a copy that has overwritten its source is judged by its CRC, and not done again', async () => {
    const overlapping = operations.move(0n, 8n, 16);
    const { run, asked } = scripted(7, 7, undefined, 9, 7, 7);
    expect(await verified('dsa', overlapping, run)).toBeUndefined();
    expect(asked).toEqual([16, 16, 3, 16, 16, 16]);
    await expect(verified('dsa', overlapping, scripted(7, 7, undefined, 8, 8).run)).rejects.toMatchObject({
      code: 'EBADMSG',
    });
  });
});
