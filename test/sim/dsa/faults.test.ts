/** The driver on an accelerator that misbehaves: every request ends, in the right result or in a clear error. */
import { operations } from '../../../examples/drivers/dsa/descriptor';
import { DsaError } from '../../../examples/drivers/dsa/errors';
import type { FaultOptions } from '../../../lib/sim';
import { Random } from '../../../lib/sim/random';
import { BDF, closeAll, LENGTH, seed, setUp, watchRequests } from './driver-rig';

afterEach(closeAll);

test('interrupts that are lost cost time only', async () => {
  const { faults, works } = await setUp();
  const injected = faults({ dropInterrupt: 0.5 });
  for (let i = 0; i < 8; i++) await works();
  expect(injected.log.length).toBeGreaterThan(0);
});

test.each([1, 2, 3, 4, 5, 6, 7, 8, 9])('an access or translation is refused, the %sth', async (nth) => {
  const { faults, works } = await setUp({ pasid: 4 });
  const injected = faults();
  // Each strikes the first that comes: the others pass before it is set.
  let seen = 0;
  const strike = () => ++seen === nth && injected.once('dmaError');
  watchRequests(injected, strike);
  await works();
  expect(injected.log.map(({ kind }) => kind)).toEqual(['dmaError']);
  await works();
});

test('accesses that are always refused are an error', async () => {
  const { dsa, from, to, faults, works } = await setUp();
  const injected = faults({ dmaError: 1 });
  await expect(dsa.move(from.iova, to.iova, LENGTH)).rejects.toMatchObject({
    name: 'DsaError',
    code: 'EIO',
    message: expect.stringMatching(`${BDF}: .* was refused`) as string,
  });
  injected.stop();
  await works();
});

test('a completion record that gets a wrong bit is noticed, or waited for in vain', async () => {
  const { dsa, faults, works } = await setUp();
  const injected = faults();
  for (let i = 0; i < 20; i++) {
    injected.once('corruptData');
    await dsa.drain({ timeout: 60 }).catch((error: unknown) => expect(error).toBeInstanceOf(DsaError));
  }
  expect(injected.log).toHaveLength(20);
  await works();
});

test('completions that are late, and overtake each other', async () => {
  const { dsa, from, to, faults } = await setUp();
  const injected = faults({ delay: 0.5 });
  const pieces = Array.from({ length: 50 }, (_, i) => BigInt(200 * i));
  await Promise.all(pieces.map((at) => dsa.move(from.iova + at, to.iova + at, 200)));
  expect(Buffer.compare(from.bytes, to.bytes)).toBe(0);
  expect(injected.log.length).toBeGreaterThan(0);
});

test.each([false, true])(
  'a device that is pulled out is an error, and no hang (polling: %s)',
  async (polling) => {
    const { machine, dsa, from, to, faults } = await setUp({ polling });
    faults().once('remove');
    const lost = [dsa.move(from.iova, to.iova, LENGTH), dsa.drain()];
    for (const each of await Promise.allSettled(lost))
      if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'ENODEV' });
    expect(machine.device(BDF)).toBeUndefined();
    await expect(dsa.drain()).rejects.toMatchObject({ code: 'ENODEV' });
  },
);

/** Every run ends in the right bytes, or in an error; wrong ones only where data was corrupted. */
async function torture(options: Partial<FaultOptions>, run: number): Promise<string[]> {
  const { dsa, from, to, faults, works } = await setUp({ pasid: 7 });
  const injected = faults({ ...options, seed: run });
  const random = new Random(run);
  const ends: string[] = [];
  for (let i = 0; i < 25; i++) {
    to.bytes.fill(0);
    const before = injected.log.length;
    const work = [0, 1, 2].map((part) =>
      operations.move(from.iova + BigInt(3000 * part), to.iova + BigInt(3000 * part), 3000),
    );
    const done = random.below(2)
      ? dsa.batch(work, { timeout: 200 })
      : Promise.all(work.map((each) => dsa.run(each, { timeout: 200 })));
    const end = await done.then(
      () =>
        Buffer.compare(from.bytes.subarray(0, 9000), to.bytes.subarray(0, 9000)) === 0 ? 'right' : 'wrong',
      (error: unknown) => (error instanceof DsaError ? error.code : String(error)),
    );
    const kinds = injected.log.slice(before).map(({ kind }) => kind);
    if (end === 'wrong') expect([run, i, kinds]).toEqual([run, i, expect.arrayContaining(['corruptData'])]);
    ends.push(end);
  }
  injected.stop();
  await works();
  return ends;
}

test('random faults, none that corrupts data: every request is done, or says why not', async () => {
  const ends = await torture({ dropInterrupt: 0.1, dmaError: 0.05, delay: 0.2 }, seed);
  expect([seed, [...new Set(ends)].filter((end) => !['right', 'EIO', 'ETIMEDOUT'].includes(end))]).toEqual([
    seed,
    [],
  ]);
  expect(ends).toContain('right');
});

test('random faults of all kinds', async () => {
  const ends = await torture({ dropInterrupt: 0.1, dmaError: 0.02, delay: 0.2, corruptData: 0.02 }, seed + 1);
  const known = ['right', 'wrong', 'EIO', 'EFAULT', 'EBADMSG', 'ETIMEDOUT'];
  expect([seed, [...new Set(ends)].filter((end) => !known.includes(end))]).toEqual([seed, []]);
});
