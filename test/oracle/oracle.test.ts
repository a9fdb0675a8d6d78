/** Our VT-d unit against QEMU's. ORACLE_SEED repeats a run; `npm run oracle` makes longer ones. */
import { QUIRKS, type QuirkName } from '../../scripts/oracle/quirks';
import { runOracle } from '../../scripts/oracle/run';
import { MODES, type Mode } from '../../scripts/oracle/scene';
import { MUTANTS, plant } from './mutants';
import { describeOracle, needQemu } from './qemu';

const SEED = Number(process.env['ORACLE_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
const TIMEOUT = 120_000;

describeOracle('QEMU agrees', () => {
  test.each(MODES)(
    `in %s mode, seed ${SEED}`,
    async (mode) => {
      const result = await runOracle({ mode, seed: SEED, accesses: 4000, without: [], program: needQemu() });
      expect(result).toMatchObject({ mismatches: 0, dumps: [] });
      // A run in which nothing is refused, or nothing passes, would say little.
      expect(result.faults).toBeGreaterThan(result.accesses * 0.4);
      expect(result.faults).toBeLessThan(result.accesses * 0.8);
    },
    TIMEOUT,
  );
});

/** Where a deviation shows that only one mode has, or one mode has soon. */
const MODE_OF: Partial<Record<QuirkName, Mode>> = {
  snoopAllowed: 'second-stage',
  typeBeforePresent: 'second-stage',
};

describeOracle('every deviation listed is QEMU’s: without it there is a difference', () => {
  test.each(Object.keys(QUIRKS) as QuirkName[])(
    '%s',
    async (name) => {
      const mode = MODE_OF[name] ?? 'first-stage';
      const run = { mode, seed: 1, without: [name], program: needQemu() };
      const { mismatches } = await runOracle({ ...run, accesses: 20_000, stopAtFirst: true, shown: 0 });
      expect(mismatches).toBeGreaterThan(0);
    },
    TIMEOUT,
  );
});

describeOracle('a planted bug is found', () => {
  test.each(MUTANTS.map((mutant) => [mutant.name, mutant] as const))(
    '%s',
    async (_, mutant) => {
      const { create, remove } = plant(mutant);
      try {
        const run = { mode: mutant.mode, seed: 1, without: [], program: needQemu(), create };
        const { mismatches } = await runOracle({ ...run, accesses: 20_000, stopAtFirst: true, shown: 0 });
        expect(mismatches).toBeGreaterThan(0);
      } finally {
        remove();
      }
    },
    TIMEOUT,
  );
});
