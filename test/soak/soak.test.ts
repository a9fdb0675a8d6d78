/** The soaks, short: `npm run soak` is the same for as long as one likes. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { loadAddon } from '../../lib/linux/addon';

const MAIN = join(__dirname, '../../scripts/soak/main.js');
const native = !('reason' in loadAddon()) && spawnSync(process.env['CC'] ?? 'cc', ['--version']).status === 0;

function soak(...args: string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
}

test.each(['pump', 'ring'])('%s: 2 million faults, in order, none lost, memory flat', (name) => {
  const { status, stdout, stderr } = soak('--json', '--only', name, '--faults', '2000000');
  expect({ status, stderr }).toMatchObject({ status: 0 });
  const { [name]: result } = JSON.parse(stdout) as Record<string, Record<string, number>>;
  if (native) expect(result.faults).toBe(2_000_000);
  else expect(stderr).toContain(`left out: ${name}`);
  if (native && name === 'pump') expect(result).toMatchObject({ dropped: 0, refused: 0 });
});

test('simulated: 20,000 faults answered by us, or by the kernel where their attach ended', () => {
  const { status, stdout, stderr } = soak('--json', '--only', 'simulated', '--faults', '2000000');
  console.log(/seed \d+/.exec(stderr)?.[0]);
  expect({ status, stderr }).toMatchObject({ status: 0 });
  const { simulated } = JSON.parse(stdout) as Record<string, Record<string, number>>;
  const { faults, ours, kernels, attaches } = simulated;
  expect(faults).toBe(20_000);
  expect(ours + kernels).toBe(faults);
  expect(Math.min(ours, kernels, attaches)).toBeGreaterThan(0);
});

test('the command line', () => {
  expect(soak('--help').stdout).toMatch(/^Usage: npm run soak/);
  expect(soak('--only', 'lunch')).toMatchObject({
    status: 2,
    stderr: 'soak: --only lunch: there are pump, ring, simulated\n',
  });
  expect(soak('--faults', '0')).toMatchObject({ status: 2 });
});
