import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_READ,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
} from '../../../lib/sim/bus';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { FakePort } from './fake-port';
import { EVERYTHING, TestFunction } from './test-function';

describe('BARs', () => {
  test('accesses reach the device, their values cut to their width', () => {
    const device = new TestFunction();
    expect(device.readBar(0, 0x20, 1)).toBe(0xff);
    expect(device.readBar(0, 0x20, 2)).toBe(0xffff);
    expect(device.readBar(0, 0x20, 4)).toBe(0xffffffff);
    device.writeBar(0, 0x3ffc, 4, -1);
    device.writeBar(0, 1, 1, 0x1234);
    expect(device.log).toEqual([
      'read 0 32 1',
      'read 0 32 2',
      'read 0 32 4',
      'write 0 16380 4 ffffffff',
      'write 0 1 1 34',
    ]);
  });

  test('8 bytes are two accesses, low half first', () => {
    const device = new TestFunction();
    expect(device.read64(0, 0x1008)).toBe('100c_1008');
    device.writeBar64(0, 8, 0x11, 0x22);
    expect(device.log).toEqual(['read 0 4104 4', 'read 0 4108 4', 'write 0 8 4 22', 'write 0 12 4 11']);
  });

  test.each([
    [0, 1, 2],
    [0, 2, 4],
    [0, 0x4000, 1],
    [0, -4, 4],
    [0, 0, 3],
    [1, 0, 4],
    [6, 0, 4],
  ])('no access to BAR %p at %p of width %p', (bar, offset, width) => {
    const device = new TestFunction();
    expect(() => device.readBar(bar, offset, width)).toThrow(RangeError);
    expect(() => device.writeBar(bar, offset, width, 0)).toThrow(RangeError);
    expect(device.log).toEqual([]);
  });

  test.each([4, -8, 0x4000])('no access of 8 bytes at %p', (offset) => {
    const device = new TestFunction();
    expect(() => device.writeBar64(0, offset, 0, 0)).toThrow(RangeError);
    expect(() => device.read64(0, offset)).toThrow(RangeError);
    expect(device.log).toEqual([]);
  });

  test('nobody answers while memory space is off or the function sleeps', () => {
    const device = new TestFunction();
    const silent = (): void => {
      expect(device.readBar(0, 0, 4)).toBe(0xffffffff);
      expect(device.readBar(2, 0, 2)).toBe(0xffff);
      expect(device.read64(0, 0)).toBe('ffffffff_ffffffff');
      device.writeBar(0, 0, 4, 1);
      device.writeBar64(0, 0, 1, 1);
      expect(device.log).toEqual([]);
    };
    device.config.write(pci.COMMAND, 2, pci.COMMAND_BUS_MASTER);
    silent();
    device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
    device.set(pci.CAPABILITY_POWER_MANAGEMENT, pci.PM_CONTROL_STATUS, 2, pci.POWER_STATE_D3HOT);
    silent();
  });

  test('sizes', () => {
    const device = new TestFunction();
    expect([0, 1, 2, 3, 6].map((bar) => device.barSize(bar))).toEqual([0x4000, 0, 0x1000, 0, 0]);
  });
});

describe('DMA', () => {
  const bytes = new Uint8Array(16);

  test('needs Bus Master Enable, power and a port', () => {
    const device = new TestFunction();
    device.upstream.map(NO_PASID, 1, 2);
    expect(device.dma('read', NO_PASID, 0x1000, bytes)).toBe(16);
    expect(device.dma('write', NO_PASID, 0x1000, bytes)).toBe(16);
    device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
    expect(device.dma('read', NO_PASID, 0x1000, bytes)).toBe(0);
    expect(device.dma('write', NO_PASID, 0x1000, bytes)).toBe(0);
    device.config.write(pci.COMMAND, 2, pci.COMMAND_BUS_MASTER);
    expect(device.dma('read', NO_PASID, 0x1000, bytes)).toBe(16);
    device.set(pci.CAPABILITY_POWER_MANAGEMENT, pci.PM_CONTROL_STATUS, 2, pci.POWER_STATE_D3HOT);
    expect(device.dma('read', NO_PASID, 0x1000, bytes)).toBe(0);
    expect(device.upstream.requests).toHaveLength(3);
    const gone = new TestFunction();
    gone.upstream.map(NO_PASID, 1, 2);
    gone.disconnect();
    expect(gone.dma('read', NO_PASID, 0x1000, bytes)).toBe(0);
    expect(gone.connected).toBe(false);
  });

  test('with a PASID, its modes and translated addresses only as far as they are enabled', () => {
    const device = new TestFunction();
    for (const pasid of [NO_PASID, 3, 255, 256]) device.upstream.map(pasid, 1, 2, { execute: true });
    const read = (pasid: number, access: number): boolean =>
      device.dma('read', pasid, 0x1000, bytes, access) === 16;
    const { EXTENDED_CAPABILITY_PASID: PASID, EXTENDED_CAPABILITY_ATS: ATS } = pci;

    expect(read(3, ACCESS_READ)).toBe(false);
    device.setExtended(PASID, pci.PASID_CONTROL, 2, pci.PASID_CONTROL_ENABLE);
    expect(read(3, ACCESS_READ)).toBe(true);
    expect(read(255, ACCESS_READ)).toBe(true);
    expect(read(256, ACCESS_READ)).toBe(false);
    expect(read(3, ACCESS_EXECUTE)).toBe(false);
    device.setExtended(PASID, pci.PASID_CONTROL, 2, pci.PASID_CONTROL_ENABLE | pci.PASID_EXECUTE);
    expect(read(3, ACCESS_EXECUTE)).toBe(true);
    expect(read(3, ACCESS_PRIVILEGED)).toBe(false);
    device.setExtended(PASID, pci.PASID_CONTROL, 2, 0x7);
    expect(read(3, ACCESS_EXECUTE | ACCESS_PRIVILEGED)).toBe(true);
    expect(read(NO_PASID, ACCESS_PRIVILEGED)).toBe(false);

    expect(read(NO_PASID, ACCESS_TRANSLATED)).toBe(false);
    expect(device.ask(NO_PASID, 0x1000, ACCESS_READ).success).toBe(false);
    expect(device.upstream.translations).toEqual([]);
    device.setExtended(ATS, pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    expect(read(NO_PASID, ACCESS_TRANSLATED)).toBe(true);
    expect(device.ask(3, 0x1000, ACCESS_WRITE)).toMatchObject({ success: true, low: 0x2000, write: true });
  });

  test('the translation cache takes invalidations, and is empty after ATS was off', () => {
    const device = new TestFunction();
    device.upstream.map(1, 1, 2);
    device.upstream.map(1, 2, 3);
    const enable = (on: boolean): void =>
      device.setExtended(pci.EXTENDED_CAPABILITY_ATS, pci.ATS_CONTROL, 2, on ? pci.ATS_CONTROL_ENABLE : 0);
    enable(true);
    device.cache(0x1000);
    device.cache(0x2000);
    device.invalidateTranslations(1, 0, 0x1000, 4096, false);
    expect(device.cached).toBe(1);
    enable(false);
    expect(device.cached).toBe(0);
  });
});

describe('INTx', () => {
  test('the pin follows the level and Interrupt Disable; the status bit follows the level alone', () => {
    const device = new TestFunction();
    const pin: boolean[] = [];
    device.onIntx = (asserted) => pin.push(asserted);
    const status = (): boolean => (device.config.read(pci.STATUS, 2) & pci.STATUS_INTERRUPT) !== 0;
    device.level(true);
    device.level(true);
    expect([device.intxAsserted, status(), pin]).toEqual([true, true, [true]]);
    device.config.write(pci.COMMAND, 2, pci.COMMAND_INTERRUPT_DISABLE);
    expect([device.intxAsserted, status(), pin]).toEqual([false, true, [true, false]]);
    device.config.write(pci.COMMAND, 2, 0);
    expect(pin).toEqual([true, false, true]);
    device.level(false);
    expect([device.intxAsserted, status(), pin]).toEqual([false, false, [true, false, true, false]]);
  });

  test('the pin is down while MSI or MSI-X is on', () => {
    const device = new TestFunction();
    device.level(true);
    for (const [capability, enable] of [
      [pci.CAPABILITY_MSI, pci.MSI_CONTROL_ENABLE],
      [pci.CAPABILITY_MSIX, pci.MSIX_CONTROL_ENABLE],
    ]) {
      device.set(capability, pci.MSI_CONTROL, 2, enable);
      expect(device.intxAsserted).toBe(false);
      device.set(capability, pci.MSI_CONTROL, 2, 0);
      expect(device.intxAsserted).toBe(true);
    }
  });

  test('needs a pin', () => {
    expect(() => new TestFunction({ ...EVERYTHING, interruptPin: 0 }).level(true)).toThrow(
      'no interrupt pin',
    );
  });
});

describe('reset', () => {
  const dirty = (): TestFunction => {
    const device = new TestFunction();
    device.setExtended(pci.EXTENDED_CAPABILITY_ATS, pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    device.upstream.map(1, 1, 2);
    device.cache(0x1000);
    device.level(true);
    device.set(pci.CAPABILITY_MSI, pci.MSI_CONTROL, 2, pci.MSI_CONTROL_ENABLE);
    return device;
  };
  const expectReset = (device: TestFunction): void => {
    expect(device.resets).toBe(1);
    expect(device.config.read(pci.COMMAND, 2)).toBe(0);
    expect(device.cached).toBe(0);
    expect(device.intxAsserted).toBe(false);
    expect(device.raise(0)).toBe(false);
    expect(device.dma('read', NO_PASID, 0x1000, new Uint8Array(1))).toBe(0);
  };

  test('of the function clears all, and what it had scheduled', () => {
    const device = dirty();
    let ran = 0;
    device.after(10, () => ran++);
    device.reset();
    device.after(20, () => (ran += 10));
    device.upstream.clock.idle();
    expect(ran).toBe(10);
    expectReset(device);
  });

  test('by FLR', () => {
    const device = dirty();
    device.set(pci.CAPABILITY_MSI, pci.MSI_CONTROL, 2, 0);
    const pin: boolean[] = [];
    device.onIntx = (asserted) => pin.push(asserted);
    device.set(pci.CAPABILITY_EXPRESS, pci.EXPRESS_DEVICE_CONTROL, 2, 0x2810 | pci.EXPRESS_INITIATE_FLR);
    expectReset(device);
    expect(pin).toEqual([false]);
    const control = device.config.capability(pci.CAPABILITY_EXPRESS) + pci.EXPRESS_DEVICE_CONTROL;
    expect(device.config.read(control, 2)).toBe(0x2810);
  });

  test('through D3hot, where configuration is not kept', () => {
    const device = dirty();
    const PM = pci.CAPABILITY_POWER_MANAGEMENT;
    device.set(PM, pci.PM_CONTROL_STATUS, 2, pci.POWER_STATE_D3HOT);
    expect(device.resets).toBe(0);
    device.set(PM, pci.PM_CONTROL_STATUS, 2, pci.POWER_STATE_D0);
    expectReset(device);
  });

  test('D1 and D2 do not exist, and No_Soft_Reset keeps everything', () => {
    const device = new TestFunction({
      ...EVERYTHING,
      capabilities: [{ kind: 'power-management', noSoftReset: true }],
      extendedCapabilities: [],
    });
    const PM = pci.CAPABILITY_POWER_MANAGEMENT;
    const state = (): number => device.config.read(device.config.capability(PM) + pci.PM_CONTROL_STATUS, 2);
    for (const sleep of [1, 2]) {
      device.set(PM, pci.PM_CONTROL_STATUS, 2, sleep);
      expect(state()).toBe(pci.PM_NO_SOFT_RESET);
    }
    device.set(PM, pci.PM_CONTROL_STATUS, 2, 3);
    expect(device.readBar(0, 0, 4)).toBe(0xffffffff);
    device.set(PM, pci.PM_CONTROL_STATUS, 2, 0);
    expect(device.readBar(0, 4, 4)).toBe(4);
    expect(device.resets).toBe(0);
  });

  test.each([
    ['FLR', { kind: 'express', type: 'endpoint', functionLevelReset: true } as const, true],
    ['no FLR', { kind: 'express', type: 'endpoint', functionLevelReset: false } as const, false],
    ['D3hot', { kind: 'power-management', noSoftReset: false } as const, true],
    ['D3hot without reset', { kind: 'power-management', noSoftReset: true } as const, false],
  ])('%s: whether the function can be reset alone', (_name, capability, expected) => {
    const device = new TestFunction({ ...EVERYTHING, capabilities: [capability], extendedCapabilities: [] });
    expect(device.resettable).toBe(expected);
  });
});

describe('connection', () => {
  test('one port at a time, and a requester ID of 16 bits', () => {
    const device = new TestFunction();
    expect(device.requesterId).toBe(0x20);
    expect(() => device.connect(1, new FakePort())).toThrow('connected already');
    device.disconnect();
    expect(() => device.connect(0x10000, new FakePort())).toThrow(RangeError);
    device.connect(0x28, new FakePort());
    expect(device.requesterId).toBe(0x28);
  });

  test('what was scheduled before a disconnection does not happen', () => {
    const device = new TestFunction();
    let ran = false;
    device.after(1, () => (ran = true));
    device.disconnect();
    device.connect(0x20, device.upstream);
    expect(device.upstream.clock.idle()).toBe(1);
    expect(ran).toBe(false);
  });
});
