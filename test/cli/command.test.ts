/** The command `iommufd`, as a program. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { IommuDescription } from '../../lib';
import { readPicture } from './svg-reader';

const ROOT = join(__dirname, '../../..');
const { bin } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { bin: { iommufd: string } };

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, bin.iommufd), ...args], {
    encoding: 'utf8',
    cwd: folder,
    env: { ...process.env, IOMMUFD_BACKEND: 'simulated' },
  });
  return { status, stdout, stderr };
}

/** Writes a program that has a device in an address space, and ends with `last`. */
function program(name: string, last: string): string {
  const load = name.endsWith('.mjs')
    ? `import lib from ${JSON.stringify(join(ROOT, 'dist/lib/index.js'))};`
    : `const lib = require(${JSON.stringify(join(ROOT, 'dist/lib/index.js'))});`;
  const text = `${load}
const iommu = lib.Iommu.open();
const device = iommu.bind('0000:00:04.0', { cookie: 0x77n });
const space = iommu.createAddressSpace();
device.attach(space);
space.map(iommu.allocateDma(8192), { iova: 0x100000n });
setInterval(() => {}, 1000);
${last}
`;
  writeFileSync(join(folder, name), text);
  return name;
}

describe('iommufd graph', () => {
  test.each([
    ['a module', 'one.mjs', 'export { iommu };'],
    ['a CommonJS module', 'one.cjs', 'module.exports = { iommu };'],
    ['a default export', 'two.mjs', 'export default iommu;'],
  ])('draws what %s exports, and ends', (_what, name, last) => {
    const { status, stdout, stderr } = run('graph', program(name, last));
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(readPicture(stdout).boxes.map(({ id }) => id)).toEqual(['device 0x77', 'space 1', 'buffer 0']);
  });

  test('--json gives the state, which can be drawn later', () => {
    const { stdout } = run('graph', '--json', program('json.mjs', 'export { iommu };'));
    const [state] = JSON.parse(stdout) as IommuDescription[];
    expect(state.devices).toMatchObject([{ cookie: '0x77', attached: [{ pasid: null, ioasid: 1 }] }]);
    for (const [name, text] of [
      ['list.json', stdout],
      ['single.json', JSON.stringify(state)],
    ]) {
      writeFileSync(join(folder, name), text);
      expect(run('graph', '--output', 'state.svg', name)).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(readPicture(readFileSync(join(folder, 'state.svg'), 'utf8')).boxes).toHaveLength(3);
    }
  });

  test('what has no state is refused, without a stack', () => {
    for (const [name, text] of [
      ['bad.json', '{'],
      ['other.json', '{"devices":[]}'],
      ['empty.json', '[]'],
    ]) {
      writeFileSync(join(folder, name), text);
      const { status, stderr } = run('graph', name);
      expect([status, stderr.split('\n').length]).toEqual([1, 2]);
      expect(stderr).toContain(name);
      expect(refused(name)).toMatchObject({ message: stderr.trimEnd() });
    }
    for (const last of [
      '',
      'iommu.close(); export { iommu };',
      'export const nothing = [null, 1, { describe: 1 }];',
    ]) {
      const { status, stdout, stderr } = run('graph', program('silent.mjs', last));
      expect([status, stdout]).toEqual([1, '']);
      expect(stderr).toBe('silent.mjs exports no Iommu: add `export { iommu }`, and leave it open\n');
    }
  });

  /** What a refused command says to programs; its status is 1, and people have nothing to read. */
  function refused(...args: string[]): object {
    const { status, stdout, stderr } = run('graph', '--json', ...args);
    expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
    return (JSON.parse(stdout) as { error: object }).error;
  }

  test.each([
    ['none.mjs', [], 'ENOENT'],
    ['none.json', [], 'ENOENT'],
    ['.', [], 'EISDIR'],
    ['here.mjs', ['--output', 'nowhere/state.svg'], 'ENOENT'],
  ])('%s %j: a file that is not there is refused, without a stack', (name, args, code) => {
    if (name === 'here.mjs') program(name, 'export { iommu };');
    const { status, stdout, stderr } = run('graph', ...args, name);
    expect({ status, stdout, lines: stderr.split('\n').length }).toEqual({ status: 1, stdout: '', lines: 2 });
    expect(refused(...args, name)).toEqual({ code, message: stderr.trimEnd() });
  });

  test('an error of the program is its own, with its stack, and JSON for programs', () => {
    const args = ['graph', program('throws.mjs', 'space.map(1);')];
    const { status, stdout, stderr } = run(...args);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain('TypeError: map takes a DmaBuffer');
    expect(stderr).toContain('throws.mjs');
    const again = run(...args, '--json');
    expect([again.status, again.stderr]).toEqual([1, stderr]);
    const message = expect.stringContaining('map takes a DmaBuffer') as string;
    expect(JSON.parse(again.stdout)).toEqual({ error: { message } });
  });

  test('arguments that make no sense give the usage', () => {
    for (const args of [['graph'], ['graph', 'a.json', 'b.json'], ['graph', '--jsn', 'a.json']]) {
      const { status, stdout, stderr } = run(...args);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toContain('iommufd graph [--json]');
    }
  });
});
