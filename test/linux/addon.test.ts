/** The package without its addon: loaded by nobody, not built, or built wrongly. Runs everywhere. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(__dirname, '../../..');

function run(folder: string, script: string): string {
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: folder, encoding: 'utf8' });
  return stdout + stderr;
}

test('importing lib/linux loads no addon', () => {
  const script = `
    require('./dist/lib/linux/kernel');
    console.log(Object.keys(require.cache).filter((path) => path.endsWith('.node')).length);`;
  expect(run(root, script)).toBe('0\n');
});

describe('a copy without the addon', () => {
  let folder: string;
  const reason = `console.log(require('./dist/lib/linux/kernel').LinuxKernel.load().reason)`;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'iommufd-test-'));
    cpSync(join(root, 'dist/lib'), join(folder, 'dist/lib'), { recursive: true });
    cpSync(join(root, 'package.json'), join(folder, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const expected = (onLinux: RegExp) => (process.platform === 'linux' ? onLinux : /^\w+ is not Linux/);

  test('says that it is not built', () => {
    expect(run(folder, reason)).toMatch(
      expected(/^the native addon is not built \(to build it: npx iommufd build\)\n$/),
    );
    const made = run(
      folder,
      `try { new (require('./dist/lib/linux/kernel').LinuxKernel)() } catch (e) { console.log(String(e)) }`,
    );
    expect(made).toMatch(expected(/^Error: the native addon is not built/));
  });

  test('says why it does not load', () => {
    mkdirSync(join(folder, 'build/Release'), { recursive: true });
    writeFileSync(join(folder, 'build/Release/iommufd.node'), 'no shared object');
    expect(run(folder, reason)).toMatch(expected(/^the native addon does not load .*iommufd\.node/));
  });
});
