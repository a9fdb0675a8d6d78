/** The package as npm packs it, in an empty project whose TypeScript checks everything, libraries included. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(__dirname, '../..');
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');

/** All four entry points; whatever is exported has a type that declarations can name. */
const PROGRAM = `
import { AddressSpace, defineRegisters, DmaBuffer, FaultQueue, Iommu, IommuError, type WaitOptions } from 'iommufd';
import { openKernel } from 'iommufd/kernel';
import { endpoint, Machine, PciDevice, type Process } from 'iommufd/sim';
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
export const MAP = defineRegisters({
  CAP: { offset: 0, width: 64, access: 'ro', fields: { MQES: [15, 0], BASE: [63, 20] } },
  TAIL: { offset: 8, width: 32, access: 'wo', count: 4 },
});
export const registers = iommu.bind('00:05.0', { cookie: 2 }).region('bar0').registers(MAP);
export const fields: { MQES: number; BASE: bigint } = registers.CAP.read();
export const pool = space.createPool({ limit: 1 << 20 });
export class Own extends PciDevice {
  readonly own = this.registers(0, MAP, { TAIL: { written: (value, _previous, index) => this.start(this.run(value + index)) } });
  constructor() {
    super(endpoint({ vendorId: 1, deviceId: 2, classCode: 3, bars: { 0: 4096 }, msix: 1 }));
  }
  *run(address: number): Process {
    const bytes = yield* this.dma.read(address, 4);
    this.own.CAP.write({ MQES: bytes[0], BASE: 1 });
  }
}
export const faults = new Machine({ devices: { '00:06.0': new Own() } }).injectFaults('00:06.0', { seed: 1 });
// @ts-expect-error: read-only
registers.CAP.write(1n);
// @ts-expect-error: a bigint
export const wrong: number = registers.CAP.field('BASE');
// @ts-expect-error: no such field
registers.CAP.field('NONE');
// @ts-expect-error: made by the Iommu
new AddressSpace();
// @ts-expect-error: made by the Iommu
new FaultQueue();
// @ts-expect-error: made by the Iommu
DmaBuffer.allocate();
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
