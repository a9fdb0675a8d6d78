/** scripts/install.mjs where it cannot build: it must say so, and succeed. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Outcome } from './child';

const root = join(__dirname, '../../..');

describe('npm install', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'iommufd-test-'));
    mkdirSync(join(folder, 'scripts'));
    for (const each of ['scripts/install.mjs', 'package.json', 'binding.gyp', 'native'])
      cpSync(join(root, each), join(folder, each), { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** Runs the script where PATH leads to nothing. */
  function install(environment: Record<string, string> = {}, ...args: string[]): Outcome {
    const run = spawnSync(process.execPath, ['scripts/install.mjs', ...args], {
      cwd: folder,
      env: { PATH: join(folder, 'nothing'), HOME: folder, ...environment },
      encoding: 'utf8',
    });
    return { end: run.status ?? run.signal, stdout: run.stdout, stderr: run.stderr };
  }

  const simulated =
    /\niommufd: the simulated backend works without\..* npx iommufd build; in a clone: npm run install\n$/;

  test('without Python, make and a compiler', () => {
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    const { end, stdout, stderr } = install();
    expect({ end, stdout }).toEqual({ end: 0, stdout: '' });
    expect(stderr).toMatch(/^iommufd: the native addon for Linux was not built: \S.*$/m);
    expect(stderr).toMatch(simulated);
  });

  test('without node-gyp', () => {
    const { end, stderr } = install();
    expect(end).toBe(0);
    if (process.platform === 'linux') expect(stderr).toMatch(/not built: node-gyp was not found$/m);
    expect(stderr).toMatch(simulated);
  });

  test('where it is required, that is a failure', () => {
    const { end, stderr } = install({ IOMMUFD_SKIP_BUILD: '1' }, '--required');
    expect(end).toBe(1);
    expect(stderr).toMatch(simulated);
  });

  test('IOMMUFD_SKIP_BUILD=1', () => {
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    const { end, stderr } = install({ IOMMUFD_SKIP_BUILD: '1' });
    expect(end).toBe(0);
    expect(stderr).toMatch(/IOMMUFD_SKIP_BUILD=1/);
    expect(existsSync(join(folder, 'build'))).toBe(false);
  });
});
