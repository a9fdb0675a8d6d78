import { defineRegisters } from '../../../lib';
import { NO_PASID, PRG_FAILURE, PRG_INVALID, PRG_SUCCESS } from '../../../lib/sim/bus';
import { DmaError, type DmaOptions } from '../../../lib/sim/devices/device-dma';
import { endpoint } from '../../../lib/sim/devices/endpoint';
import { PciDevice } from '../../../lib/sim/devices/pci-device';
import * as pci from '../../../lib/sim/devices/pci-registers';
import type { Process } from '../../../lib/sim/devices/process';
import { FakePort, PAGE } from './fake-port';

const MAP = defineRegisters({
  ID: { offset: 0x00, width: 32, access: 'ro', reset: 0xabcd },
  CONTROL: { offset: 0x04, width: 32, reset: 2, fields: { GO: 0, MODE: [3, 1] } },
  EVENTS: { offset: 0x08, width: 32, access: 'w1c', fields: { A: 0, B: 1, C: 31 } },
  SMALL: { offset: 0x0c, width: 16 },
  ADDRESS: { offset: 0x10, width: 64, reset: 7n },
  EVENTS64: { offset: 0x18, width: 64, access: 'w1c' },
  IN: { offset: 0x20, width: 32, access: 'ro' },
  OUT: { offset: 0x20, width: 32, access: 'wo' },
  DOORBELL: { offset: 0x40, width: 32, access: 'wo', count: 4, stride: 8 },
  TIME: { offset: 0x60, width: 32, access: 'ro' },
});

class TestDevice extends PciDevice {
  readonly upstream = new FakePort();
  readonly log: unknown[] = [];
  readonly regs = this.registers(0, MAP, {
    CONTROL: { written: (value, previous) => this.log.push('control', value, previous) },
    EVENTS: { written: (value) => this.log.push('events', value) },
    ADDRESS: { written: (value, previous) => this.log.push('address', value, previous) },
    OUT: { written: (value) => this.log.push('out', value) },
    DOORBELL: { written: (value, _previous, index) => this.log.push('doorbell', index, value) },
    TIME: { reading: () => this.regs.TIME.write(this.upstream.clock.now) },
  });
  readonly buffer = this.memory(0, 0x800, 0x100);
  resets = 0;

  constructor() {
    super(
      endpoint({
        vendorId: 1,
        deviceId: 2,
        classCode: 3,
        bars: { 0: 4096 },
        msix: 3,
        ats: true,
        pri: 4,
        pasid: 8,
      }),
    );
    this.connect(0x20, this.upstream);
    this.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  }
  protected override afterReset(): void {
    this.resets++;
  }
  go(process: () => Process): void {
    this.start(process());
  }
  wait(nanoseconds: number): Process {
    return this.delay(nanoseconds);
  }
  fetch(address: bigint | number, length: number, options?: DmaOptions): Process<Uint8Array> {
    return this.dma.read(address, length, options);
  }
  store(address: bigint | number, bytes: Uint8Array, options?: DmaOptions): Process {
    return this.dma.write(address, bytes, options);
  }
  tryRegisters(map: typeof MAP, bar: number, offset: number): void {
    this.registers(bar, map, {}, offset);
  }
  read64(offset: number): bigint {
    const halves = { high: 0, low: 0 };
    this.readBar64(0, offset, halves);
    return (BigInt(halves.high) << 32n) | BigInt(halves.low);
  }
  /** Switches ATS, page requests and PASIDs on. */
  enableAll(allocation = 4): void {
    const at = (id: number) => this.config.extendedCapability(id);
    this.config.write(at(pci.EXTENDED_CAPABILITY_PASID) + pci.PASID_CONTROL, 2, 7);
    this.config.write(at(pci.EXTENDED_CAPABILITY_ATS) + pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    this.config.write(at(pci.EXTENDED_CAPABILITY_PRI) + pci.PRI_ALLOCATION, 4, allocation);
    this.config.write(at(pci.EXTENDED_CAPABILITY_PRI) + pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
  }
}

/** How a transfer ends: its bytes, or its error. */
function outcome(device: TestDevice, transfer: () => Process<Uint8Array | void>): unknown[] {
  const ends: unknown[] = [];
  device.go(function* () {
    try {
      const bytes = yield* transfer();
      ends.push(bytes ? [...bytes] : 'done');
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      const { reason, address, write, done } = error;
      ends.push({ reason, address, write, done });
    }
  });
  return ends;
}

describe('registers', () => {
  test('software reads and writes what the declaration lets it, and the device hears of it', () => {
    const device = new TestDevice();
    expect([device.readBar(0, 0, 4), device.readBar(0, 4, 4), device.read64(0x10)]).toEqual([0xabcd, 2, 7n]);
    device.writeBar(0, 0, 4, 5);
    expect(device.readBar(0, 0, 4)).toBe(0xabcd);
    device.writeBar(0, 4, 4, 0x9);
    expect(device.log).toEqual(['control', { GO: 1, MODE: 4 }, { GO: 0, MODE: 1 }]);
    device.regs.ID.write(1);
    expect(device.readBar(0, 0, 4)).toBe(1);
    device.writeBar(0, 0x0c, 2, 0xbeef);
    expect(device.readBar(0, 0x0c, 2)).toBe(0xbeef);
  });

  test('writing ones clears', () => {
    const device = new TestDevice();
    device.regs.EVENTS.update({ A: 1, B: 1, C: 1 });
    device.writeBar(0, 8, 4, 0x80000001);
    expect(device.readBar(0, 8, 4)).toBe(2);
    expect(device.log).toEqual(['events', { A: 1, B: 0, C: 1 }]);
    device.regs.EVENTS64.write(0xff_0000_00ffn);
    device.writeBar(0, 0x1c, 4, 0xf);
    expect(device.read64(0x18)).toBe(0xf0_0000_00ffn);
    device.writeBar64(0, 0x18, 0xf0, 0xf);
    expect(device.read64(0x18)).toBe(0xf0n);
  });

  test('64 bits in one access or in halves; other widths find nothing', () => {
    const device = new TestDevice();
    device.writeBar64(0, 0x10, 0x89abcdef, 0x01234567);
    expect([device.readBar(0, 0x10, 4), device.readBar(0, 0x14, 4)]).toEqual([0x01234567, 0x89abcdef]);
    device.writeBar(0, 0x14, 4, 1);
    expect(device.read64(0x10)).toBe(0x1_0123_4567n);
    expect(device.log.slice(-3)).toEqual(['address', 0x1_0123_4567n, 0x89ab_cdef_0123_4567n]);
    expect([device.readBar(0, 4, 2), device.readBar(0, 0x10, 1), device.readBar(0, 0x700, 4)]).toEqual([
      0, 0, 0,
    ]);
    device.writeBar(0, 4, 1, 0xff);
    expect(device.readBar(0, 4, 4)).toBe(2);
    // Two registers in one access of 8 bytes are two accesses.
    expect(device.read64(0)).toBe(0x2_0000_abcdn);
    device.writeBar64(0, 0, 4, 4);
    expect(device.read64(0)).toBe(0x4_0000_abcdn);
  });

  test('one offset, two registers: what is read, and what is written', () => {
    const device = new TestDevice();
    device.regs.IN.write(5);
    device.writeBar(0, 0x20, 4, 9);
    expect([device.readBar(0, 0x20, 4), device.regs.OUT.read(), device.log]).toEqual([5, 9, ['out', 9]]);
    device.writeBar(0, 0x50, 4, 3);
    expect([device.readBar(0, 0x50, 4), device.regs.DOORBELL.at(2).read()]).toEqual([0, 3]);
    expect(device.log.slice(2)).toEqual(['doorbell', 2, 3]);
  });

  test('a register may be computed when it is read; memory takes any width', () => {
    const device = new TestDevice();
    device.upstream.clock.schedule(123, () => {});
    device.upstream.clock.idle();
    expect(device.readBar(0, 0x60, 4)).toBe(123);
    device.writeBar(0, 0x801, 1, 0x12);
    device.writeBar(0, 0x802, 2, 0x5634);
    expect([device.readBar(0, 0x800, 4), device.buffer[1]]).toEqual([0x56341200, 0x12]);
    device.writeBar64(0, 0x8f8, 1, 2);
    expect([device.read64(0x8f8), device.buffer[0xf8]]).toEqual([0x1_0000_0002n, 2]);
  });

  test('a reset brings back what was declared', () => {
    const device = new TestDevice();
    device.writeBar(0, 4, 4, 0xe);
    device.regs.ADDRESS.write(1n);
    device.regs.DOORBELL.at(3).write(8);
    device.buffer.fill(1);
    device.reset();
    device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
    expect([device.readBar(0, 4, 4), device.read64(0x10), device.regs.DOORBELL.at(3).read()]).toEqual([
      2,
      7n,
      0,
    ]);
    expect([device.resets, device.buffer.every((byte) => byte === 0)]).toEqual([1, true]);
  });

  test('registers that do not fit', () => {
    const device = new TestDevice();
    expect(() => device.tryRegisters(MAP, 1, 0)).toThrow('the function has no BAR 1');
    expect(() => device.tryRegisters(MAP, 0, 0xfc0)).toThrow('do not fit in a BAR of 4096');
    expect(() => device.tryRegisters(MAP, 0, 4)).toThrow(RangeError);
    expect(() => device.tryRegisters(MAP, 0, 0x40)).toThrow(/is where .* is, at 0x/);
  });
});

describe('processes', () => {
  test('go on as time passes, without a turn of the event loop', () => {
    const device = new TestDevice();
    const seen: number[] = [];
    const { clock } = device.upstream;
    for (const step of [100, 30])
      device.go(function* () {
        for (let i = 0; i < 3; i++) {
          yield* device.wait(step);
          seen.push(clock.now);
        }
      });
    clock.idle();
    expect(seen).toEqual([30, 60, 90, 100, 200, 300]);
  });

  test('end with a reset, and with the device', () => {
    for (const end of ['reset', 'disconnect'] as const) {
      const device = new TestDevice();
      device.enableAll();
      let ended = 0;
      device.go(function* () {
        yield* device.wait(10);
        ended++;
      });
      const waiting = outcome(device, () => device.fetch(0x5000, 8, { pasid: 1 }));
      device.upstream.clock.step();
      device.upstream.clock.step();
      device[end]();
      device.pageGroupResponse(1, 0, PRG_SUCCESS);
      device.upstream.clock.idle();
      expect([end, ended, waiting]).toEqual([end, 1, []]);
    }
  });

  test('an error of the device is an error of the program', () => {
    const device = new TestDevice();
    device.go(function* () {
      yield* device.wait(1);
      throw new Error('a bug in the device');
    });
    expect(() => device.upstream.clock.idle()).toThrow('a bug in the device');
  });
});

describe('DMA', () => {
  test('over page borders, without ATS; what is refused says where', () => {
    const device = new TestDevice();
    const { upstream } = device;
    for (let page = 0; page < 3; page++) upstream.map(NO_PASID, page + 10, page);
    const bytes = Uint8Array.from({ length: 2 * PAGE }, (_, i) => i);
    const written = outcome(device, () => device.store(10 * PAGE + 100, bytes));
    upstream.clock.idle();
    expect(written).toEqual(['done']);
    expect([...upstream.memory.subarray(100, 100 + 2 * PAGE)]).toEqual([...bytes]);
    const read = outcome(device, () => device.fetch(BigInt(10 * PAGE + 4000), 200));
    upstream.clock.idle();
    expect(read).toEqual([[...bytes.subarray(3900, 4100)]]);
    const refused = outcome(device, () => device.fetch(13 * PAGE - 10, 20));
    const beyond = outcome(device, () => device.store(2n ** 64n - 1n, new Uint8Array(2)));
    upstream.clock.idle();
    expect(refused).toEqual([{ reason: 'refused', address: BigInt(13 * PAGE), write: false, done: 10 }]);
    expect(beyond).toEqual([{ reason: 'refused', address: 2n ** 64n - 1n, write: true, done: 0 }]);
    expect(upstream.translations).toEqual([]);
  });

  test('uses ATS where it is on, asks once, and again after an invalidation', () => {
    const device = new TestDevice();
    const { upstream } = device;
    device.enableAll();
    upstream.map(3, 10, 2);
    upstream.memory.fill(7, 2 * PAGE, 3 * PAGE);
    const fetch = (options = {}) => {
      const ends = outcome(device, () => device.fetch(10 * PAGE, 2, { pasid: 3, ...options }));
      upstream.clock.idle();
      return ends;
    };
    expect([fetch(), fetch(), upstream.translations.length]).toEqual([[[7, 7]], [[7, 7]], 1]);
    expect(upstream.requests.every(({ pasid, page }) => pasid === NO_PASID && page === 2)).toBe(true);
    device.invalidateTranslations(3, 0, 10 * PAGE, PAGE, false);
    expect([fetch(), upstream.translations.length]).toEqual([[[7, 7]], 2]);
    expect([fetch({ ats: false }), upstream.translations.length]).toEqual([[[7, 7]], 2]);
    expect(upstream.requests.at(-1)).toMatchObject({ pasid: 3, page: 10 });
    upstream.ats = false;
    device.invalidateTranslations(3, 0, 10 * PAGE, PAGE, false);
    expect(fetch()).toEqual([{ reason: 'translation', address: BigInt(10 * PAGE), write: false, done: 0 }]);
  });

  test.each([
    ['page-invalid', PRG_INVALID],
    ['page-failure', PRG_FAILURE],
  ])('a page request that is answered with %s', (reason, code) => {
    const device = new TestDevice();
    device.enableAll();
    const ends = outcome(device, () => device.store(0x5008, new Uint8Array(4), { pasid: 1 }));
    device.upstream.clock.idle();
    expect(device.upstream.pageRequests).toMatchObject([
      { pasid: 1, low: 0x5000, read: false, write: true, last: true },
    ]);
    device.pageGroupResponse(1, device.upstream.pageRequests[0].prgIndex, code);
    device.upstream.clock.idle();
    expect(ends).toEqual([{ reason, address: 0x5008n, write: true, done: 0 }]);
  });

  test('pages are asked for until they are there, or it gives up', () => {
    const device = new TestDevice();
    const { upstream } = device;
    device.enableAll();
    upstream.pri = (request) => {
      const { prgIndex } = request;
      upstream.schedule(1000, () => {
        if (upstream.pageRequests.length === 3) upstream.map(1, 5, 1);
        device.pageGroupResponse(1, prgIndex, PRG_SUCCESS);
      });
      return true;
    };
    const found = outcome(device, () => device.fetch(0x5000, 1, { pasid: 1 }));
    upstream.clock.idle();
    expect([found, upstream.pageRequests.length]).toEqual([[[0]], 3]);
    const never = outcome(device, () => device.fetch(0x9000, 1, { pasid: 1 }));
    upstream.clock.idle();
    expect(never).toEqual([{ reason: 'no-access', address: 0x9000n, write: false, done: 0 }]);
    upstream.pri = false;
    const unsent = outcome(device, () => device.fetch(0xa000, 1, { pasid: 1 }));
    upstream.clock.idle();
    expect(unsent).toMatchObject([{ reason: 'page-request' }]);
  });

  test('more transfers than page requests may be in flight: the others wait their turn', () => {
    const device = new TestDevice();
    const { upstream } = device;
    device.enableAll(2);
    const ends = [5, 6, 7, 8].map((page) =>
      outcome(device, () => device.fetch(page * PAGE, 1, { pasid: 1 })),
    );
    upstream.clock.idle();
    expect(upstream.pageRequests.length).toBe(2);
    for (let answered = 0; answered < 4; answered++) {
      const { low, prgIndex } = upstream.pageRequests[answered];
      upstream.map(1, low / PAGE, answered);
      device.pageGroupResponse(1, prgIndex, PRG_SUCCESS);
      upstream.clock.idle();
    }
    expect(ends).toEqual([[[0]], [[0]], [[0]], [[0]]]);
    expect(new Set(upstream.pageRequests.map(({ prgIndex }) => prgIndex)).size).toBe(4);
  });

  test('a Response Failure ends all that wait: no other answer comes', () => {
    const device = new TestDevice();
    device.enableAll(2);
    const fetch = (page: number) => outcome(device, () => device.fetch(page * PAGE, 1, { pasid: 1 }));
    const [first, second, third] = [fetch(5), fetch(6), fetch(7)];
    device.upstream.clock.idle();
    device.pageGroupResponse(1, device.upstream.pageRequests[1].prgIndex, PRG_FAILURE);
    device.upstream.clock.idle();
    expect([first, second, third]).toMatchObject([
      [{ reason: 'page-failure', address: BigInt(5 * PAGE) }],
      [{ reason: 'page-failure', address: BigInt(6 * PAGE) }],
      [{ reason: 'no-access', address: BigInt(7 * PAGE) }],
    ]);
  });

  test('without page requests, a page that is missing is no access; without Bus Master Enable, all is refused', () => {
    const device = new TestDevice();
    device.enableAll();
    const at = device.config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    device.config.write(at + pci.PRI_CONTROL, 2, 0);
    const missing = outcome(device, () => device.fetch(0x5000, 1, { pasid: 1 }));
    device.upstream.clock.idle();
    expect(missing).toMatchObject([{ reason: 'no-access' }]);
    device.upstream.map(NO_PASID, 5, 0);
    device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
    const off = outcome(device, () => device.fetch(0x5000, 1, { ats: false }));
    device.upstream.clock.idle();
    expect(off).toMatchObject([{ reason: 'refused' }]);
  });
});

describe('endpoint()', () => {
  const identity = { vendorId: 1, deviceId: 2, classCode: 3 };

  test('lays out capabilities, and gives MSI-X a BAR of its own', () => {
    const device = new TestDevice();
    expect(device.resettable).toBe(true);
    expect(device.config.bars).toMatchObject([
      { bar: 0, size: 4096, width: 64 },
      { bar: 2, size: 4096, width: 64 },
    ]);
    const { bars, capabilities } = endpoint({ ...identity, bars: { 2: 4096 }, msix: 2048, intx: true });
    expect(bars).toMatchObject([{ bar: 2 }, { bar: 0, size: 65536 }]);
    expect(capabilities).toContainEqual({
      kind: 'msix',
      vectors: 2048,
      table: { bar: 0, offset: 0 },
      pending: { bar: 0, offset: 32768 },
    });
  });

  test('what cannot be', () => {
    expect(() => endpoint({ ...identity, pri: 1 })).toThrow('need address translation services');
    expect(() => endpoint({ ...identity, bars: { 0: 4096, 2: 4096, 4: 4096 }, msix: 1 })).toThrow(
      'no BAR is left',
    );
  });
});
