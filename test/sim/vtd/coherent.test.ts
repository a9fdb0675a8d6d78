/**
 * Software that follows every change of its tables with the least invalidation (VT-d specification rev. 4.1, section 6.5.3)
 * never notices the caches: a unit with caches answers as one whose caches are emptied before each request, marks the same
 * entries, and strict mode is silent. Software that invalidates nothing does notice; strict mode reports each time.
 * VTD_SEED repeats a run, VTD_ROUNDS makes it longer.
 */
import { isDeepStrictEqual } from 'node:util';
import type { StaleUse } from '../../../lib/sim/vtd';
import { Answer, Kind, World } from './coherent';

const SEED = Number(process.env['VTD_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const ROUNDS = Number(process.env['VTD_ROUNDS'] ?? 4);
const STEPS = 60;
const REQUESTS = 8;
const KINDS: readonly Kind[] = ['second', 'first', 'nested'];

/** Two worlds from one seed, side by side: what `meet` is told is each request's answer in both. */
function sideBySide(a: World, b: World, meet: (a: Answer, b: Answer, step: number) => void): void {
  for (let step = 0; step < STEPS; step++) {
    a.change();
    b.change();
    for (let i = 0; i < REQUESTS; i++) meet(a.ask(), b.ask(), step);
  }
}

describe.each(KINDS)(`%s stage, seed ${SEED}`, (kind) => {
  test.each(['plain', 'strict'])('with the least invalidation, %s', (mode) => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = (SEED + round) | 0;
      const stale: StaleUse[] = [];
      const strict = mode === 'strict' && { strict: (use: StaleUse) => stale.push(use) };
      const cached = new World({ kind, seed, invalidates: true, fresh: false, ...strict });
      const fresh = new World({ kind, seed, invalidates: true, fresh: true });
      sideBySide(cached, fresh, (got, expected, step) => {
        if (stale.length === 0 && isDeepStrictEqual(got, expected)) return;
        expect({ seed, step, stale, got }).toEqual({ seed, step, stale: [], got: expected });
      });
      const marks = cached.tables().equals(fresh.tables());
      expect({ seed, marks }).toEqual({ seed, marks: true });
    }
  });

  test('without invalidation', () => {
    let differences = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const seed = (SEED + round) | 0;
      const stale: StaleUse[] = [];
      const strict = (use: StaleUse) => stale.push(use);
      const cached = new World({ kind, seed, invalidates: false, fresh: false, strict });
      const fresh = new World({ kind, seed, invalidates: false, fresh: true });
      sideBySide(cached, fresh, (got, expected, step) => {
        const reported = stale.splice(0).length > 0;
        if (isDeepStrictEqual(got, expected)) return;
        if (!reported) expect({ seed, step, got }).toEqual({ seed, step, got: expected });
        differences++;
      });
    }
    expect(differences).toBeGreaterThan(0);
  });
});
