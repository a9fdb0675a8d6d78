/** `iommufd bind` and `unbind` on a simulated machine: its sysfs moves devices as that of Linux does. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Iommu, IommuError } from '../../lib';
import { bind, unbind } from '../../lib/cli/bind/bind';
import { Records } from '../../lib/cli/bind/records';
import { describeDevices } from '../../lib/cli/devices';
import { simulatedSystem } from '../../lib/cli/system';
import type { Kernel, KernelFiles } from '../../lib/kernel';
import { Edu, Machine, type MachineOptions } from '../../lib/sim';
import { errno } from '../../lib/uapi';
import { FabricatedFiles, pciDevice, systemOf } from './fabricated';

const BDF = '0000:00:04.0';
const NO = { force: false, group: false };
const FORCE = { force: true, group: false };
const GROUP = { force: false, group: true };

let records: Records;

beforeEach(() => {
  records = new Records(join(mkdtempSync(join(tmpdir(), 'iommufd-bind-')), 'state'));
});
afterEach(() => rmSync(join(records.folder, '..'), { recursive: true }));

function machine(devices: MachineOptions['devices'] = { [BDF]: { device: new Edu(), driver: 'edu' } }) {
  const kernel = new Machine({ devices }).process();
  return { kernel, system: simulatedSystem(kernel) };
}

/** Drivers by address, and what driver_override says. */
function state(kernel: KernelFiles): string[] {
  return describeDevices(simulatedSystem(kernel)).map(({ bdf, driver }) => {
    const override = kernel.readFile(`/sys/bus/pci/devices/${bdf}/driver_override`);
    return `${bdf.slice(5)} ${driver} ${String(override).trim()}`;
  });
}

/** The same calls, but writes that a test forbids. */
function withoutWrites(kernel: Kernel, refuses: (path: string, text: string) => number): KernelFiles {
  const files: Record<string, unknown> = {};
  for (const name of ['open', 'close', 'read', 'readdir', 'readFile', 'readlink'] as const)
    files[name] = (...args: never[]) => (kernel[name] as (...all: never[]) => unknown)(...args);
  files['writeFile'] = (path: string, text: string) => refuses(path, text) || kernel.writeFile(path, text);
  return files as unknown as KernelFiles;
}

describe('iommufd bind', () => {
  test('gives a device to vfio-pci, and unbind gives it back', () => {
    const { kernel, system } = machine();
    expect(bind(system, records, '00:04.0', NO)).toEqual([
      { bdf: BDF, from: 'edu', to: 'vfio-pci', path: '/dev/vfio/devices/vfio0' },
    ]);
    expect(state(kernel)).toEqual(['00:04.0 vfio-pci vfio-pci']);
    expect(readdirSync(records.folder)).toEqual([`${BDF}.json`]);
    expect(bind(system, records, BDF, NO)).toEqual([]);
    expect(unbind(system, records, BDF, NO)).toEqual([{ bdf: BDF, from: 'vfio-pci', to: 'edu', path: null }]);
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
    expect(readdirSync(records.folder)).toEqual([]);
  });

  test('remembers that a device had no driver', () => {
    const { kernel, system } = machine({ [BDF]: { device: new Edu(), driver: null } });
    expect(bind(system, records, BDF, NO)).toMatchObject([{ from: null, to: 'vfio-pci' }]);
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: null }]);
    expect(state(kernel)).toEqual(['00:04.0 null (null)']);
  });

  test('remembers what driver_override said', () => {
    const { kernel, system } = machine();
    kernel.writeFile(`/sys/bus/pci/devices/${BDF}/driver_override`, 'edu');
    bind(system, records, BDF, NO);
    unbind(system, records, BDF, NO);
    expect(state(kernel)).toEqual(['00:04.0 edu edu']);
  });

  test('refuses what cannot be bound: no device, no IOMMU, no vfio-pci, a bridge', () => {
    const { system } = machine();
    expect(() => bind(system, records, '00:09.0', NO)).toThrow('there is no PCI device 0000:00:09.0');
    expect(() => bind(system, records, 'eth0', NO)).toThrow(TypeError);
    const fabricated = (device: Parameters<typeof pciDevice>[1], drivers = 'vfio-pci') =>
      systemOf(
        new FabricatedFiles({ ...pciDevice(BDF, device), [`/sys/bus/pci/drivers/${drivers}/bind`]: '' }),
      );
    for (const force of [false, true]) {
      const choices = { force, group: true };
      expect(() => bind(fabricated({ driver: 'nvme' }), records, BDF, choices)).toThrow(
        'no IOMMU is in front',
      );
      expect(() => bind(fabricated({ group: 1 }, 'nvme'), records, BDF, choices)).toThrow(
        'sudo modprobe vfio-pci',
      );
      const bridge = { driver: 'pcieport', group: 1, class: '0x060400' };
      expect(() => bind(fabricated(bridge), records, BDF, choices)).toThrow('is a bridge');
    }
  });

  test('refuses a device in use, and goes on when forced', () => {
    const { kernel } = machine();
    const used = withoutWrites(kernel, () => 0);
    const inUse: KernelFiles = {
      ...used,
      readFile: (path) => (path.endsWith('/boot_vga') ? '1\n' : used.readFile(path)),
    };
    const system = simulatedSystem(inUse);
    const refused = () => bind(system, records, BDF, NO);
    expect(refused).toThrow(IommuError);
    expect(refused).toThrow(/EBUSY: 0000:00:04.0 is in use: .*display.*--force/);
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
    expect(bind(system, records, BDF, FORCE)).toHaveLength(1);
  });

  test('takes devices of a group together, or none', () => {
    const { kernel, system } = machine({
      [BDF]: { device: new Edu(), driver: 'edu', group: 1 },
      '0000:00:05.0': { device: new Edu(), driver: 'edu', group: 1 },
      '0000:00:06.0': { device: new Edu(), driver: null, group: 1 },
      '0000:00:07.0': { device: new Edu(), driver: 'edu', group: 2 },
    });
    const before = state(kernel);
    for (const choices of [NO, FORCE])
      expect(() => bind(system, records, BDF, choices)).toThrow(
        /EBUSY.*also has 0000:00:05.0 \(driver edu\)/,
      );
    expect(state(kernel)).toEqual(before);
    expect(bind(system, records, BDF, GROUP).map(({ bdf }) => bdf)).toEqual([BDF, '0000:00:05.0']);
    expect(state(kernel)).toEqual([
      '00:04.0 vfio-pci vfio-pci',
      '00:05.0 vfio-pci vfio-pci',
      '00:06.0 null (null)',
      '00:07.0 edu (null)',
    ]);
    expect(unbind(system, records, '00:05.0', GROUP).map(({ bdf }) => bdf)).toEqual(['0000:00:05.0', BDF]);
    expect(state(kernel)).toEqual(before);
  });
});

describe('a step that fails', () => {
  test.each([
    ['driver_override', /driver_override$/],
    ['unbind', /unbind$/],
    ['drivers_probe', /drivers_probe$/],
  ])('%s: everything is as it was, and the error says to be root', (_what, pattern) => {
    const { kernel } = machine();
    // vfio-pci's own unbind, by which the way back goes, works.
    const files = withoutWrites(kernel, (path) => (pattern.test(path) ? -errno.EACCES : 0));
    expect(() => bind(simulatedSystem(files), records, BDF, NO)).toThrow(/EACCES.*it takes root: sudo/);
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
    expect(readdirSync(records.folder)).toEqual([]);
  });

  test('a device that vfio-pci does not take goes back', () => {
    const { kernel } = machine();
    const files = withoutWrites(kernel, (path) => (path.endsWith('drivers_probe') ? 1 : 0));
    expect(() => bind(simulatedSystem(files), records, BDF, NO)).toThrow(/ENODEV: vfio-pci does not take/);
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
  });

  test('the second of a group: the first goes back too', () => {
    const { kernel } = machine({
      [BDF]: { device: new Edu(), driver: 'edu', group: 1 },
      '0000:00:05.0': { device: new Edu(), driver: 'edu', group: 1 },
    });
    const before = state(kernel);
    const files = withoutWrites(kernel, (path) =>
      path.includes('00:05.0/driver_override') ? -errno.EACCES : 0,
    );
    expect(() => bind(simulatedSystem(files), records, BDF, GROUP)).toThrow('EACCES');
    expect(state(kernel)).toEqual(before);
    expect(readdirSync(records.folder)).toEqual([]);
  });

  test('nothing is touched where nothing can be remembered', () => {
    const { kernel, system } = machine();
    writeFileSync(records.folder, 'in the way');
    expect(() => bind(system, records, BDF, NO)).toThrow(
      /nothing can be written to .*EEXIST.*unbind could not/,
    );
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
  });
});

describe('iommufd unbind', () => {
  test('lets Linux choose where nothing is remembered, or another device was there', () => {
    const { kernel, system } = machine();
    bind(system, records, BDF, NO);
    records.forget(BDF);
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
    bind(system, records, BDF, NO);
    const path = join(records.folder, `${BDF}.json`);
    const record = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    writeFileSync(path, JSON.stringify({ ...record, deviceId: 1, driver: null }));
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
    expect(state(kernel)).toEqual(['00:04.0 edu (null)']);
  });

  test.each([
    '',
    '{',
    'null',
    '{"bdf":"0000:00:04.0"}',
    '{"bdf":"0000:00:04.0","vendorId":4660,"deviceId":4584,"driver":"../x","driverOverride":null,"boot":null}',
  ])('does not believe a record that says %j', (text) => {
    const { system } = machine();
    bind(system, records, BDF, NO);
    writeFileSync(join(records.folder, `${BDF}.json`), text);
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
  });

  test("refuses a device that is not vfio-pci's", () => {
    const { system } = machine();
    expect(() => unbind(system, records, BDF, NO)).toThrow('0000:00:04.0 has edu, not vfio-pci');
  });

  test('refuses a device that a program has open', () => {
    const { kernel, system } = machine();
    bind(system, records, BDF, NO);
    const iommu = Iommu.open({ backend: kernel });
    iommu.bind(BDF, { cookie: 1 });
    // Linux would wait for the program; the simulated kernel refuses.
    expect(() => unbind(system, records, BDF, FORCE)).toThrow(/cannot be taken from vfio-pci/);
    const seen: KernelFiles = {
      ...withoutWrites(kernel, () => 0),
      readdir: (path) => (path === '/proc' ? ['77'] : path === '/proc/77/fd' ? ['3'] : kernel.readdir(path)),
      readlink: (path) => (path === '/proc/77/fd/3' ? '/dev/vfio/devices/vfio0' : kernel.readlink(path)),
    };
    expect(() => unbind(simulatedSystem(seen), records, BDF, NO)).toThrow(/EBUSY.*open in process 77/);
    iommu.close();
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
  });
});
