/** Our VT-d unit against QEMU's. ORACLE_SEED repeats a run; `npm run oracle` makes longer ones. */
import { MODES } from '../../scripts/oracle/scene';
import { runOracle } from '../../scripts/oracle/run';
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
