/** What `iommufd bind` remembers, where somebody else, an end in the middle or another `bind` comes in between. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bind, unbind } from '../../lib/cli/bind/bind';
import { Records } from '../../lib/cli/bind/records';
import { describeDevices } from '../../lib/cli/devices';
import { simulatedSystem } from '../../lib/cli/system';
import type { KernelFiles } from '../../lib/kernel';
import { Edu, Machine } from '../../lib/sim';
import { errno } from '../../lib/uapi';

const BDF = '0000:00:04.0';
const FOLDER = `/sys/bus/pci/devices/${BDF}`;
const BOOT = '/proc/sys/kernel/random/boot_id';
const NO = { force: false, group: false };
const EDU = 'edu (null)';

let records: Records;

beforeEach(() => {
  records = new Records(join(mkdtempSync(join(tmpdir(), 'iommufd-again-')), 'state'), 50);
});
afterEach(() => rmSync(join(records.folder, '..'), { recursive: true }));

/** A machine whose boot has a name, and which may refuse some writes. */
function machine(refuses: (path: string) => number = () => 0) {
  const kernel = new Machine({ devices: { [BDF]: { device: new Edu(), driver: 'edu' } } }).process();
  const seen = { boot: 'a' };
  const files: KernelFiles = {
    open: (path, flags) => kernel.open(path, flags),
    close: (fd) => kernel.close(fd),
    read: (fd, bytes) => kernel.read(fd, bytes),
    readdir: (path) => kernel.readdir(path),
    readFile: (path) => (path === BOOT ? `${seen.boot}\n` : kernel.readFile(path)),
    readlink: (path) => kernel.readlink(path),
    writeFile: (path, text) => refuses(path) || kernel.writeFile(path, text),
  };
  const system = simulatedSystem(files);
  const state = () => {
    const [{ driver }] = describeDevices(system);
    return `${driver} ${String(kernel.readFile(`${FOLDER}/driver_override`)).trim()}`;
  };
  /** As a person does it, by hand. */
  const echo = (text: string, path: string) => expect(kernel.writeFile(path, text)).toBeGreaterThanOrEqual(0);
  return { system, seen, state, echo };
}

describe('a device that bind took', () => {
  test('and that a person took from vfio-pci: the second bind does not forget the driver', () => {
    const { system, state, echo } = machine();
    bind(system, records, BDF, NO);
    echo(BDF, '/sys/bus/pci/drivers/vfio-pci/unbind');
    expect(state()).toBe('null vfio-pci');
    expect(bind(system, records, BDF, NO)).toMatchObject([{ from: null, to: 'vfio-pci' }]);
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ from: 'vfio-pci', to: 'edu' }]);
    expect(state()).toBe(EDU);
  });

  test('and that a person took from vfio-pci: unbind gives it its driver back', () => {
    const { system, state, echo } = machine();
    bind(system, records, BDF, NO);
    echo(BDF, '/sys/bus/pci/drivers/vfio-pci/unbind');
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ from: null, to: 'edu' }]);
    expect(state()).toBe(EDU);
    expect(readdirSync(records.folder)).toEqual([]);
  });

  test('and that a person gave to another driver: what it is then counts', () => {
    const { system, state, echo } = machine();
    echo('edu', `${FOLDER}/driver_override`);
    bind(system, records, BDF, NO);
    echo(BDF, '/sys/bus/pci/drivers/vfio-pci/unbind');
    echo('\n', `${FOLDER}/driver_override`);
    echo(BDF, '/sys/bus/pci/drivers/edu/bind');
    expect(() => unbind(system, records, BDF, NO)).toThrow('has edu, not vfio-pci');
    bind(system, records, BDF, NO);
    unbind(system, records, BDF, NO);
    // Not 'edu edu', as the first time.
    expect(state()).toBe(EDU);
  });

  test.each([
    ['another device', { deviceId: 1 }],
    ['another boot', { boot: 'b' }],
  ])('is not believed to be %s', (_what, other) => {
    const { system, state, echo } = machine();
    bind(system, records, BDF, NO);
    echo(BDF, '/sys/bus/pci/drivers/vfio-pci/unbind');
    const path = join(records.folder, `${BDF}.json`);
    const record = JSON.parse(readFileSync(path, 'utf8')) as object;
    writeFileSync(path, JSON.stringify({ ...record, ...other }));
    bind(system, records, BDF, NO);
    unbind(system, records, BDF, NO);
    expect(state()).toBe('null vfio-pci');
  });

  test.each([
    ['nothing yet', []],
    ['its driver_override', ['/driver_override']],
    ['and its driver', ['/driver_override', '/driver/unbind']],
  ])('goes back when bind was killed after it had changed %s', (_what, changed) => {
    for (const again of [true, false]) {
      const { system, state } = machine();
      // The process ends: nothing is put back.
      const left = changed.length;
      let done = 0;
      const dying = { ...system.files };
      dying.writeFile = (path, text) => {
        if (done++ >= left) throw new RangeError('killed');
        expect(path).toBe(FOLDER + changed[done - 1]);
        return system.files.writeFile(path, text);
      };
      expect(() => bind(simulatedSystem(dying), records, BDF, NO)).toThrow('killed');
      expect(existsSync(join(records.folder, `${BDF}.json`))).toBe(true);
      if (again) expect(bind(system, records, BDF, NO)).toMatchObject([{ to: 'vfio-pci' }]);
      if (again || left > 0) expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
      expect(state()).toBe(EDU);
    }
  });

  test('whose driver does not take it back keeps its record, until it does', () => {
    const gone = { is: true };
    const { system, state } = machine((path) =>
      gone.is && /drivers\/edu\/bind$|drivers_probe$/.test(path) && state() === 'null (null)'
        ? -errno.ENODEV
        : 0,
    );
    bind(system, records, BDF, NO);
    expect(() => unbind(system, records, BDF, NO)).toThrow(/ENODEV.*no driver now: edu.*sudo modprobe edu/);
    expect(state()).toBe('null (null)');
    gone.is = false;
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ from: null, to: 'edu' }]);
    expect(readdirSync(records.folder)).toEqual([]);
  });

  test('stays as it was where a second bind fails, and its driver is not forgotten', () => {
    const broken = { is: false };
    const { system, state, echo } = machine((path) =>
      broken.is && path.endsWith('drivers_probe') ? -errno.EACCES : 0,
    );
    bind(system, records, BDF, NO);
    echo(BDF, '/sys/bus/pci/drivers/vfio-pci/unbind');
    broken.is = true;
    expect(() => bind(system, records, BDF, NO)).toThrow('EACCES');
    expect(state()).toBe('null vfio-pci');
    broken.is = false;
    expect(unbind(system, records, BDF, NO)).toMatchObject([{ to: 'edu' }]);
  });
});

describe('two at once', () => {
  /** Another process that lives: this one's parent. */
  function claim(pid: number, started?: string): string {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const name = `lock.${pid}.${started ?? text.slice(text.lastIndexOf(')') + 2).split(' ')[19]}`;
    mkdirSync(records.folder, { recursive: true });
    writeFileSync(join(records.folder, name), '');
    return name;
  }

  test('the second waits, and is refused where that takes too long', () => {
    const { system, state } = machine();
    const name = claim(process.ppid);
    const refused = new RegExp(`EBUSY: process ${process.ppid} is binding or unbinding`);
    expect(() => bind(system, records, BDF, NO)).toThrow(refused);
    expect(state()).toBe(EDU);
    expect(readdirSync(records.folder)).toEqual([name]);
    rmSync(join(records.folder, name));
    bind(system, records, BDF, NO);
    claim(process.ppid);
    expect(() => unbind(system, records, BDF, NO)).toThrow(refused);
  });

  test('the claim of a process that ended is none', () => {
    const { system } = machine();
    claim(process.ppid, '1');
    mkdirSync(records.folder, { recursive: true });
    // Above the most that Linux gives (PID_MAX_LIMIT, 2^22).
    writeFileSync(join(records.folder, 'lock.4194305.1'), '');
    expect(bind(system, records, BDF, NO)).toHaveLength(1);
    expect(readdirSync(records.folder)).toEqual([`${BDF}.json`]);
  });
});
