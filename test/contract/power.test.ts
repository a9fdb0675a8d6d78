/** A device with PCI power management: the simulated DMA engine; on Linux, QEMU's NVMe controller. Both are at 00:05.0. */
import { defineRegisters, type Region } from '../../lib';
import { backend, errorOf, kernel, open } from './support';

const BDF = '0000:00:05.0';
const FOLDER = `/sys/bus/pci/devices/${BDF}`;
const CAPABILITIES_POINTER = 0x34;
const POWER_MANAGEMENT = 1;
const D0 = 0;
const D3_HOT = 3;

/** What the kernel's own driver has, vfio-pci gets; and back. */
function giveTo(driver: string): void {
  const raw = kernel();
  raw.writeFile(`${FOLDER}/driver_override`, driver);
  raw.writeFile(`${FOLDER}/driver/unbind`, BDF);
  raw.writeFile('/sys/bus/pci/drivers_probe', BDF);
}

if (backend === 'linux') {
  beforeAll(() => giveTo('vfio-pci'));
  afterAll(() => giveTo('\n'));
}

function pmcsrOf(config: Region): number {
  let at = config.read8(CAPABILITIES_POINTER);
  while (config.read8(at) !== POWER_MANAGEMENT) at = config.read8(at + 1);
  return at + 4;
}

test('a device stays in D0 while its BARs are mapped; afterwards it may sleep, and a BAR opened then is not mapped', () => {
  const device = open().bind(BDF, { cookie: 1 });
  const bar = device.region('bar0');
  const config = device.region('config');
  const pmcsr = pmcsrOf(config);
  const first = bar.read32(0);
  expect(bar.mapped).toBe(true);
  const refused = {
    code: 'EBUSY',
    syscall: 'pwrite',
    reason: `${BDF} must stay in power state D0 while its BARs are mapped`,
  };
  expect(errorOf(() => config.write16(pmcsr, D3_HOT))).toMatchObject(refused);
  expect(errorOf(() => config.write8(pmcsr, 1))).toMatchObject(refused);
  expect(errorOf(() => config.write(pmcsr - 2, new Uint8Array([0, 0, D3_HOT, 0])))).toMatchObject(refused);
  config.write16(pmcsr, D0);
  config.write8(pmcsr + 1, 0);
  expect(bar.read32(0)).toBe(first);
  bar.close();
  config.write16(pmcsr, D3_HOT);
  expect(config.read16(pmcsr) & 3).toBe(D3_HOT);
  const asleep = device.region('bar0');
  expect(asleep.mapped).toBe(false);
  expect(errorOf(() => asleep.read32(0))).toMatchObject({ code: 'EIO', syscall: 'pread' });
  asleep.close();
  config.write16(pmcsr, D0);
  expect(device.region('bar0').mapped).toBe(true);
  expect(device.region('bar0').read32(0)).toBe(first);
});

test('the guard stands when configuration space was closed in between, and a reset leaves mappings usable', () => {
  const device = open().bind(BDF, { cookie: 1 });
  const bar = device.region('bar0');
  const first = bar.read32(0);
  const pmcsr = pmcsrOf(device.region('config'));
  device.region('config').close();
  expect(errorOf(() => device.region('config').write16(pmcsr, D3_HOT))).toMatchObject({ code: 'EBUSY' });
  bar.close();
  device.region('config').close();
  expect(device.region('bar0').mapped).toBe(true);
  device.reset();
  expect(device.region('bar0').read32(0)).toBe(first);
});

test('a reset leaves configuration space as it is', () => {
  const device = open().bind(BDF, { cookie: 1 });
  device.enableBusMaster();
  const { COMMAND } = device.config.header;
  const before = COMMAND.read();
  device.reset();
  expect(COMMAND.read()).toEqual(before);
  expect(before).toMatchObject({ BUS_MASTER: 1, MEMORY_SPACE: 1 });
});

test('the power state by name', () => {
  const device = open().bind(BDF, { cookie: 1 });
  expect(device.powerState).toBe('d0');
  const bar = device.region('bar0');
  expect(errorOf(() => (device.powerState = 'd3hot'))).toMatchObject({ code: 'EBUSY', syscall: 'pwrite' });
  bar.close();
  device.powerState = 'd3hot';
  expect(device.powerState).toBe('d3hot');
  device.powerState = 'd0';
  expect(device.powerState).toBe('d0');
  expect(errorOf(() => (device.powerState = 'd1'))).toMatchObject({
    code: 'EOPNOTSUPP',
    reason: 'the function is in d0: it has no d1',
  });
  expect(() => (device.powerState = 'off' as 'd0')).toThrow(TypeError);
});

test('capabilities, extended ones too, by name; MSI-X registers where the list says', () => {
  const device = open().bind(BDF, { cookie: 1 });
  const { config } = device;
  const names = config.capabilities().map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(['power-management', 'msix', 'express']));
  const MSIX = defineRegisters({
    CONTROL: { offset: 2, width: 16, fields: { SIZE: [10, 0], MASK: 14, ENABLE: 15 } },
  });
  const { CONTROL } = config.registers('msix', MSIX);
  expect(CONTROL.field('SIZE') + 1).toBe(device.interruptVectors('msix'));
  const extended = config.capabilities().filter((each) => each.extended);
  for (const { id, offset, version } of extended)
    expect(config.region.read32(offset) & 0xfffff).toBe(id | (version << 16));
  expect(names.length).toBeGreaterThanOrEqual(3);
  expect(device.bars()[0]).toMatchObject({ index: 0, kind: 'memory', width: 64, prefetchable: false });
});
