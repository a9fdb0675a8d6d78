import { defineRegisters, PCI_HEADER } from '../../lib';
import { errorOf, openEdu } from './support';

test('the header by name', () => {
  const { device } = openEdu();
  const { header, region } = device.config;
  expect([header.VENDOR_ID.read(), header.DEVICE_ID.read()]).toEqual([0x1234, 0x11e8]);
  expect([header.BASE_CLASS.read(), header.SUBCLASS.read(), header.INTERRUPT_PIN.read()]).toEqual([
    0, 0xff, 1,
  ]);
  expect(header.HEADER_TYPE.read()).toEqual({ LAYOUT: 0, MULTIFUNCTION: 0 });
  expect(header.STATUS.read()).toMatchObject({ CAPABILITIES: 1, PARITY_ERROR: 0 });
  expect(device.config).toBe(device.config);
  expect(PCI_HEADER.size).toBeLessThanOrEqual(region.size);
  region.close();
  expect(device.config.header.DEVICE_ID.read()).toBe(0x11e8);
});

test('capabilities are found by name', () => {
  const { device } = openEdu();
  const { config } = device;
  expect(config.capabilities()).toEqual([{ id: 5, name: 'msi', offset: 0x40, extended: false, version: 0 }]);
  expect(config.capability('msi')).toMatchObject({ offset: 0x40 });
  expect(config.capability('msix')).toBeUndefined();
  const MSI = defineRegisters({ CONTROL: { offset: 2, width: 16, fields: { ENABLE: 0, WIDE: 7 } } });
  expect(config.registers('msi', MSI).CONTROL.read()).toEqual({ ENABLE: 0, WIDE: 1 });
  expect(errorOf(() => config.registers('express', MSI))).toMatchObject({
    code: 'EOPNOTSUPP',
    reason: 'there is no express capability in config of 0000:00:04.0',
  });
});

test('BARs and their sizes', () => {
  const { device } = openEdu();
  expect(device.bars()).toEqual([
    { index: 0, size: 2 ** 20, kind: 'memory', width: 32, prefetchable: false },
  ]);
});

test('bus master on and off', () => {
  const { device } = openEdu();
  const { COMMAND } = device.config.header;
  expect(COMMAND.field('BUS_MASTER')).toBe(0);
  device.enableBusMaster();
  expect(COMMAND.read()).toMatchObject({ BUS_MASTER: 1, MEMORY_SPACE: 1 });
  device.enableBusMaster(false);
  expect(COMMAND.read()).toMatchObject({ BUS_MASTER: 0, MEMORY_SPACE: 1 });
});

test('a function without power management is in D0', () => {
  const { device } = openEdu();
  expect(device.powerState).toBe('d0');
  device.powerState = 'd0';
  expect(errorOf(() => (device.powerState = 'd3hot'))).toMatchObject({ code: 'EOPNOTSUPP' });
  device.close();
  expect(errorOf(() => device.config)).toMatchObject({ code: 'EBADF' });
  expect(errorOf(() => device.bars())).toMatchObject({ code: 'EBADF' });
});
