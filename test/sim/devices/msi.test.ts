import * as pci from '../../../lib/sim/devices/pci-registers';
import { EVERYTHING, TestFunction } from './test-function';

const { CAPABILITY_MSI: MSI, CAPABILITY_MSIX: MSIX } = pci;
const DATA = 0xc;
const MASK = 0x10;
const PENDING = 0x14;

describe('MSI', () => {
  const build = (multiple = 2): TestFunction => {
    const device = new TestFunction();
    device.set(MSI, pci.MSI_ADDRESS, 4, 0xfee01000);
    device.set(MSI, DATA, 2, 0x4042);
    device.set(MSI, pci.MSI_CONTROL, 2, pci.MSI_CONTROL_ENABLE | (multiple << 4));
    return device;
  };
  const pending = (device: TestFunction): number =>
    device.config.read(device.config.capability(MSI) + PENDING, 4);

  test('a message is its address, and data with the vector in its low bits', () => {
    const device = build();
    expect(device.raise(0)).toBe(true);
    expect(device.raise(3)).toBe(true);
    expect(device.upstream.messages).toEqual([
      { high: 0, low: 0xfee01000, data: 0x4040 },
      { high: 0, low: 0xfee01000, data: 0x4043 },
    ]);
    expect(() => device.raise(4)).toThrow(RangeError);
  });

  test('with fewer vectors allocated, the others fold onto them', () => {
    const one = build(0);
    one.raise(3);
    const two = build(1);
    two.raise(3);
    expect([one.upstream.messages[0].data, two.upstream.messages[0].data]).toEqual([0x4042, 0x4043]);
  });

  test('nothing is sent while it is off, nor without Bus Master Enable', () => {
    const device = build();
    device.set(MSI, pci.MSI_CONTROL, 2, 0);
    expect(device.raise(0)).toBe(false);
    device.set(MSI, pci.MSI_CONTROL, 2, pci.MSI_CONTROL_ENABLE);
    device.config.write(pci.COMMAND, 2, 0);
    expect(device.raise(0)).toBe(false);
    expect(device.upstream.messages).toEqual([]);
  });

  test('a masked vector is pending until it is unmasked, and sent once', () => {
    const device = build();
    device.set(MSI, MASK, 4, 0b1010);
    expect([device.raise(1), device.raise(1), device.raise(3), device.raise(2)]).toEqual([
      false,
      false,
      false,
      true,
    ]);
    expect(pending(device)).toBe(0b1010);
    device.set(MSI, MASK, 4, 0b1000);
    expect(pending(device)).toBe(0b1000);
    expect(device.upstream.messages.map(({ data }) => data & 3)).toEqual([2, 1]);
    device.set(MSI, MASK, 4, 0);
    expect(device.upstream.messages.map(({ data }) => data & 3)).toEqual([2, 1, 3]);
    expect(pending(device)).toBe(0);
  });

  test('a 32-bit capability without masks', () => {
    const device = new TestFunction({
      ...EVERYTHING,
      capabilities: [{ kind: 'msi', vectors: 1, wide: false, maskable: false }],
      extendedCapabilities: [],
    });
    device.set(MSI, pci.MSI_ADDRESS, 4, 0xfee02000);
    device.set(MSI, 0x8, 2, 0x31);
    device.set(MSI, pci.MSI_CONTROL, 2, pci.MSI_CONTROL_ENABLE);
    device.raise(0);
    expect(device.upstream.messages).toEqual([{ high: 0, low: 0xfee02000, data: 0x31 }]);
  });
});

describe('MSI-X', () => {
  const PBA = 0x800;
  const build = (): TestFunction => {
    const device = new TestFunction();
    for (const vector of [0, 1, 65]) {
      device.writeBar(2, 16 * vector, 4, 0xfee00000 | (vector << 12));
      device.writeBar(2, 16 * vector + 8, 4, 0x1000 + vector);
      device.writeBar(2, 16 * vector + 12, 4, 0);
    }
    device.set(MSIX, pci.MSIX_CONTROL, 2, pci.MSIX_CONTROL_ENABLE);
    return device;
  };

  test('each vector has its own address and data', () => {
    const device = build();
    expect([device.raise(0), device.raise(65)]).toEqual([true, true]);
    expect(device.upstream.messages).toEqual([
      { high: 0, low: 0xfee00000, data: 0x1000 },
      { high: 0, low: 0xfee41000, data: 0x1041 },
    ]);
    expect(() => device.raise(70)).toThrow(RangeError);
    expect(device.log).toEqual([]);
  });

  test('after reset every vector is masked', () => {
    const device = new TestFunction();
    device.set(MSIX, pci.MSIX_CONTROL, 2, pci.MSIX_CONTROL_ENABLE);
    expect(device.readBar(2, 12, 4)).toBe(1);
    expect(device.raise(0)).toBe(false);
    expect(device.readBar(2, PBA, 4)).toBe(1);
  });

  test('a masked vector is pending until it is unmasked in the table', () => {
    const device = build();
    device.writeBar(2, 16 * 65 + 12, 4, 1);
    expect([device.raise(65), device.raise(65), device.raise(1)]).toEqual([false, false, true]);
    expect(device.read64(2, PBA)).toBe('0_0');
    expect(device.read64(2, PBA + 8)).toBe('0_2');
    device.writeBar(2, 16 * 65 + 12, 4, 0);
    expect(device.upstream.messages.map(({ data }) => data)).toEqual([0x1001, 0x1041]);
    expect(device.read64(2, PBA + 8)).toBe('0_0');
  });

  test('the function mask holds everything back', () => {
    const device = build();
    const enable = pci.MSIX_CONTROL_ENABLE;
    device.set(MSIX, pci.MSIX_CONTROL, 2, enable | pci.MSIX_CONTROL_FUNCTION_MASK);
    device.raise(1);
    device.raise(0);
    expect(device.upstream.messages).toEqual([]);
    expect(device.readBar(2, PBA, 1)).toBe(3);
    device.set(MSIX, pci.MSIX_CONTROL, 2, enable);
    expect(device.upstream.messages.map(({ data }) => data)).toEqual([0x1000, 0x1001]);
  });

  test('table entries keep what the specification has writable; pending bits are read-only', () => {
    const device = build();
    device.writeBar64(2, 16, 0xffffffff, 0xffffffff);
    device.writeBar64(2, 24, 0xffffffff, 0xffffffff);
    expect(device.read64(2, 16)).toBe('ffffffff_fffffffc');
    expect(device.read64(2, 24)).toBe('1_ffffffff');
    device.writeBar64(2, PBA, 0xffffffff, 0xffffffff);
    expect(device.read64(2, PBA)).toBe('0_0');
  });

  test('it goes before MSI, and what is beside the table belongs to the device', () => {
    const device = build();
    device.set(MSI, pci.MSI_ADDRESS, 4, 0xfee09000);
    device.set(MSI, pci.MSI_CONTROL, 2, pci.MSI_CONTROL_ENABLE);
    device.raise(0);
    device.set(MSIX, pci.MSIX_CONTROL, 2, 0);
    device.raise(0);
    expect(device.upstream.messages.map(({ low }) => low)).toEqual([0xfee00000, 0xfee09000]);
    device.readBar(2, 70 * 16, 4);
    expect(device.log).toEqual(['read 2 1120 4']);
  });

  test('the table must fit', () => {
    const at = (bar: number, offset: number) => () =>
      new TestFunction({
        ...EVERYTHING,
        capabilities: [
          { kind: 'msix', vectors: 4, table: { bar, offset }, pending: { bar: 2, offset: 0x800 } },
        ],
        extendedCapabilities: [],
      });
    expect(at(2, 0xfe0)).toThrow('the MSI-X table does not fit');
    expect(at(2, 4)).toThrow(RangeError);
    expect(at(5, 0)).toThrow(RangeError);
  });
});
