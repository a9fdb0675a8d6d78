/** Every rule in the list has a test that fails when the rule is taken out. */
import { runTests } from './mutant';
import { RULES } from './rules';

const TIMEOUT = 120_000;

test(
  'the tests that must notice pass with all rules in place',
  () => {
    const tests = [...new Set(RULES.flatMap((rule) => rule.tests))];
    const { passed, failed, broken } = runTests(tests);
    expect({ failed, broken }).toEqual({ failed: 0, broken: 0 });
    expect(passed).toBeGreaterThan(tests.length);
  },
  TIMEOUT,
);

test.each(RULES.map((rule) => [rule.name, rule] as const))(
  'noticed: %s',
  (_, rule) => {
    const { failed, broken } = runTests(rule.tests, rule);
    expect(broken).toBe(0);
    expect(failed).toBeGreaterThan(0);
  },
  TIMEOUT,
);
