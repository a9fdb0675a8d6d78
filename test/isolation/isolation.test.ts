/**
 * No DMA reads or writes a byte that the mappings of its own slot do not allow at that moment: over random histories, against a
 * model that knows nothing but the calls. ISOLATION_SEED repeats a run; ISOLATION_HISTORIES makes a longer one.
 */
import { Random } from '../../scripts/conformance/random';
import { History } from './history';
import { World } from './world';

const SEED = Number(process.env['ISOLATION_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
const HISTORIES = Number(process.env['ISOLATION_HISTORIES'] ?? 10_000);
const STEPS = 60;
/** A machine is made anew after so many. */
const PER_WORLD = 50;

test(`${HISTORIES} histories, seed ${SEED}`, () => {
  const sums = { passed: 0, refused: 0, faults: 0 };
  let world = new World(false);
  for (let i = 0; i < HISTORIES; i++) {
    if (i % PER_WORLD === 0) world = new World(i % (2 * PER_WORLD) !== 0);
    const history = new History(world, new Random(SEED, i));
    try {
      history.run(STEPS);
    } catch (error) {
      throw new Error(`history ${i} of seed ${SEED}`, { cause: error });
    } finally {
      history.close();
    }
    sums.passed += history.passed;
    sums.refused += history.refused;
    sums.faults += history.faults;
  }
  // A run in which nothing passes, or nothing is refused, would say little.
  expect(sums.passed).toBeGreaterThan(HISTORIES);
  expect(sums.refused).toBeGreaterThan(HISTORIES);
  expect(sums.faults).toBeGreaterThan(HISTORIES / 10);
}, 900_000);
