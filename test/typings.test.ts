/** The package as npm packs it, in an empty project whose TypeScript checks everything, libraries included. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(__dirname, '../..');
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');

/** All four entry points; whatever is exported has a type that declarations can name. */
const PROGRAM = `
import { AddressSpace, DmaBuffer, FaultQueue, Iommu, IommuError, type WaitOptions } from 'iommufd';
import { openKernel } from 'iommufd/kernel';
import { Machine } from 'iommufd/sim';
import { errno, IOMMU_IOAS_MAP } from 'iommufd/uapi';

export const machine = new Machine();
export const made = machine.createProcess();
export const refused = machine.refusedDma;
export const capabilities = machine.unit.capabilities;
export const system = machine.system;
export const configuration = machine.device('0000:00:04.0')?.config;
export const kernel = openKernel(machine);
export const row = IOMMU_IOAS_MAP;
export const code = errno.EINVAL;
export const iommu = Iommu.open({ backend: machine });
export const space = iommu.createAddressSpace({ parent: undefined });
export const queue = iommu.createFaultQueue();
export const wait = (options: WaitOptions) => queue.next(options);
export const interrupt = iommu.bind('00:04.0', { cookie: 1 }).interrupt('msi');
export const listening = interrupt.on('interrupt', (count) => console.log(count + 1));
export const isOurs = (error: unknown) => error instanceof IommuError && error.hint;
// @ts-expect-error: made by the Iommu
new AddressSpace();
// @ts-expect-error: made by the Iommu
new FaultQueue();
// @ts-expect-error: made by the Iommu
new DmaBuffer();
// @ts-expect-error: internal
space.context;
`;

let folder: string;

function run(program: string, args: string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8' });
  return status === 0 ? stdout : `${stdout}${stderr} (status ${status})`;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'iommufd-typings-'));
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@types'), { recursive: true });
  mkdirSync(join(modules, 'iommufd'));
  run('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], ROOT);
  const [archive] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  run('tar', ['-xzf', archive, '-C', join(modules, 'iommufd'), '--strip-components', '1'], folder);
  for (const types of ['@types/node', 'undici-types'])
    symlinkSync(join(ROOT, 'node_modules', types), join(modules, types));
});

afterAll(() => rmSync(folder, { recursive: true }));

test.each(['mts', 'cts'])('compiles as .%s, with declarations', (ending) => {
  writeFileSync(join(folder, `program.${ending}`), PROGRAM);
  const target = ['--target', 'es2022', '--lib', 'es2023,esnext.disposable', '--types', 'node'];
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--skipLibCheck', 'false', '--declaration'];
  const args = [TSC, '--module', 'nodenext', ...target, ...strict, `program.${ending}`];
  expect(run(process.execPath, args, folder)).toBe('');
});

test('examples are packed with their sources', () => {
  const packed = join(folder, 'node_modules/iommufd');
  for (const file of ['examples/demo.ts', 'dist/examples/demo.js', 'dist/lib/index.js', 'lib/index.ts'])
    expect([file, existsSync(join(packed, file))]).toEqual([file, true]);
});
