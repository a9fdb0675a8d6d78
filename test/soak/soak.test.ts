/** The soaks, short: `npm run soak` is the same for as long as one likes. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadAddon } from '../../lib/linux/addon';

const MAIN = join(__dirname, '../../scripts/soak/main.js');
const native = !('reason' in loadAddon()) && spawnSync(process.env['CC'] ?? 'cc', ['--version']).status === 0;

function soak(...args: string[]) {
  return soakIn({}, ...args);
}

function soakIn(environment: NodeJS.ProcessEnv, ...args: string[]) {
  return spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
  });
}

test.each(['pump', 'ring'])('%s: 2 million faults, in order, none lost, memory flat', (name) => {
  const { status, stdout, stderr } = soak('--json', '--only', name, '--faults', '2000000');
  const { [name]: result } = JSON.parse(stdout) as Record<string, Record<string, number>>;
  expect({ status, stderr }).toMatchObject({ status: 'unavailable' in result ? 1 : 0 });
  if (native) expect(result.faults).toBe(2_000_000);
  else if ('unavailable' in result) expect(stderr).toContain(`left out: ${name}`);
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

describe('without a C compiler', () => {
  const NONE = { CC: '/nowhere/cc' };
  const reason = /^(there is no C compiler|the native addon)/;

  const left = { unavailable: expect.stringMatching(reason) as string };

  test.each(['pump', 'ring'])('%s, where --only asks for it, is a failure and says why', (name) => {
    const { status, stdout, stderr } = soakIn(NONE, '--json', '--only', name, '--seed', '1');
    expect({ status, result: JSON.parse(stdout) as object }).toEqual({
      status: 1,
      result: { seed: 1, [name]: left },
    });
    expect(stderr).toMatch(new RegExp(`^soak: left out: ${name}: `, 'm'));
    const text = soakIn(NONE, '--only', name).stdout;
    expect(text.slice(0, text.indexOf(':'))).toBe(name);
    expect(JSON.parse(text.slice(name.length + 1))).toEqual(left);
  });

  test('the simulated one runs, and the others are left out', () => {
    const { status, stdout } = soakIn(NONE, '--json', '--faults', '2000');
    const { pump, ring, simulated } = JSON.parse(stdout) as Record<string, object>;
    expect({ status, pump, ring, simulated }).toEqual({
      status: 0,
      pump: left,
      ring: left,
      simulated: expect.objectContaining({ faults: 20 }) as object,
    });
  });

  test('but one that does not work is a failure', () => {
    // It says its version, and compiles nothing.
    const folder = mkdtempSync(join(tmpdir(), 'iommufd-cc-'));
    const CC = join(folder, 'cc');
    writeFileSync(CC, '#!/bin/sh\ntest "$1" = --version\n', { mode: 0o755 });
    const { status, stdout } = soakIn({ CC, XDG_CACHE_HOME: folder }, '--json', '--only', 'pump');
    rmSync(folder, { recursive: true });
    const { pump } = JSON.parse(stdout) as Record<string, object>;
    const result =
      'reason' in loadAddon()
        ? { unavailable: expect.any(String) as string }
        : {
            failed: expect.stringContaining('does not compile') as string,
          };
    expect({ status, pump }).toEqual({ status: 1, pump: result });
  });
});

test('the command line', () => {
  expect(soak('--help').stdout).toMatch(/^Usage: npm run soak/);
  expect(soak('--only', 'lunch')).toMatchObject({
    status: 2,
    stderr: 'soak: --only lunch: there are pump, ring, simulated\n',
  });
  expect(soak('--faults', '0')).toMatchObject({ status: 2 });
  const { status, stdout, stderr } = soak('--json', '--only', 'lunch');
  expect({ status, stderr }).toEqual({ status: 2, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({
    error: { message: '--only lunch: there are pump, ring, simulated' },
  });
});
