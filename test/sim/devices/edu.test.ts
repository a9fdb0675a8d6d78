/** What is expected of the registers was read off QEMU 7.2's own device, except where the test says otherwise. */
import { NO_PASID } from '../../../lib/sim/bus';
import { Edu, EDU_BUFFER, edu, type EduOptions } from '../../../lib/sim/devices/edu';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { FakePort, PAGE } from './fake-port';

const ALL_BITS = (1n << 64n) - 1n;

class Bench {
  readonly port = new FakePort();
  readonly device: Edu;

  constructor(options: EduOptions = { dmaMask: ALL_BITS }) {
    this.device = new Edu(options);
    this.device.connect(0x20, this.port);
    this.device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  }
  read(offset: number, width = 4): number {
    return this.device.readBar(0, offset, width);
  }
  read64(offset: number): bigint {
    const halves = { high: 0, low: 0 };
    this.device.readBar64(0, offset, halves);
    return (BigInt(halves.high) << 32n) | BigInt(halves.low);
  }
  write(offset: number, value: number): void {
    this.device.writeBar(0, offset, 4, value);
  }
  write64(offset: number, value: bigint): void {
    this.device.writeBar64(0, offset, Number(value >> 32n), Number(value & 0xffffffffn));
  }
  /** Programs a DMA and lets it end. */
  dma(source: bigint | number, destination: bigint | number, count: number, command: number): void {
    this.start(source, destination, count, command);
    this.port.clock.idle();
  }
  start(source: bigint | number, destination: bigint | number, count: number, command: number): void {
    this.write64(edu.DMA_SOURCE, BigInt(source));
    this.write64(edu.DMA_DESTINATION, BigInt(destination));
    this.write64(edu.DMA_COUNT, BigInt(count));
    this.write64(edu.DMA_COMMAND, BigInt(command));
  }
  enableMsi(): void {
    const { config } = this.device;
    const at = config.capability(pci.CAPABILITY_MSI);
    config.write(at + 4, 4, 0xfee00000);
    config.write(at + 12, 2, 0x41);
    config.write(at + 2, 2, 1);
  }
}

test('configuration space is that of QEMU', () => {
  const { config } = new Edu();
  const words = new Map([
    [0x00, 0x11e81234],
    [0x04, 0x00100000],
    [0x08, 0x00ff0010],
    [0x0c, 0],
    [0x2c, 0x11001af4],
    [0x34, 0x40],
    [0x3c, 0x0100],
    [0x40, 0x00800005],
    [0x4c, 0],
  ]);
  for (const [offset, word] of words) expect([offset, config.read(offset, 4)]).toEqual([offset, word]);
  config.write(0x10, 4, 0xffffffff);
  expect(config.read(0x10, 4)).toBe(0xfff00000);
  expect(config.size).toBe(256);
  expect(new Edu().resettable).toBe(false);
});

test('reads by offset and width', () => {
  const bench = new Bench();
  expect(bench.read(0)).toBe(0x010000ed);
  expect([bench.read(0, 1), bench.read(0, 2), bench.read(0x80, 1), bench.read(0x80, 2)]).toEqual([
    0, 0, 0, 0,
  ]);
  for (const offset of [0x0c, 0x60, 0x7c, 0x84, 0xa0, 0x40000, 0xffffc]) {
    expect([offset, bench.read(offset)]).toEqual([offset, 0xffffffff]);
  }
  for (const offset of [0x00, 0x20, 0x78, 0x40000]) {
    expect([offset, bench.read64(offset)]).toEqual([offset, ALL_BITS]);
  }
  for (const offset of [0x80, 0x88, 0x90, 0x98]) expect(bench.read64(offset)).toBe(0n);
});

test('liveness is the complement, and takes 4-byte writes only', () => {
  const bench = new Bench();
  bench.write(edu.LIVENESS, 0x12345678);
  expect(bench.read(edu.LIVENESS)).toBe(0xedcba987);
  bench.device.writeBar(0, edu.LIVENESS, 2, 0);
  bench.write64(0, 0n);
  expect(bench.read(edu.LIVENESS)).toBe(0xedcba987);
});

test.each([
  [0, 1],
  [1, 1],
  [5, 120],
  [13, 0x7328cc00],
  [33, 0x80000000],
  [34, 0],
  [40, 0],
  [0xffffffff, 0],
])('%p! is %p', (n, expected) => {
  const bench = new Bench();
  bench.write(edu.FACTORIAL, n);
  expect(bench.read(edu.STATUS)).toBe(1);
  bench.write(edu.FACTORIAL, 3);
  expect(bench.read(edu.FACTORIAL)).toBe(n);
  expect(bench.port.clock.idle()).toBe(1);
  expect([bench.read(edu.FACTORIAL), bench.read(edu.STATUS), bench.read(edu.INTERRUPT_STATUS)]).toEqual([
    expected,
    0,
    0,
  ]);
});

test('the factorial interrupt', () => {
  const bench = new Bench();
  bench.write(edu.STATUS, 0xff);
  expect(bench.read(edu.STATUS)).toBe(0x80);
  bench.write(edu.FACTORIAL, 5);
  expect(bench.read(edu.STATUS)).toBe(0x81);
  bench.port.clock.idle();
  expect([bench.read(edu.STATUS), bench.read(edu.INTERRUPT_STATUS)]).toEqual([0x80, 1]);
  expect(bench.device.intxAsserted).toBe(true);
});

test('INTx stays up until every cause is acknowledged', () => {
  const bench = new Bench();
  const pin: boolean[] = [];
  bench.device.onIntx = (asserted) => pin.push(asserted);
  bench.write(edu.INTERRUPT_RAISE, 0);
  expect(pin).toEqual([]);
  bench.write(edu.INTERRUPT_RAISE, 0x6);
  bench.write(edu.INTERRUPT_RAISE, 0x80000000);
  expect(bench.read(edu.INTERRUPT_STATUS)).toBe(0x80000006);
  expect(bench.device.config.read(pci.STATUS, 2)).toBe(0x18);
  bench.write(edu.INTERRUPT_ACKNOWLEDGE, 0x80000003);
  expect([bench.read(edu.INTERRUPT_STATUS), pin]).toEqual([4, [true]]);
  bench.write(edu.INTERRUPT_ACKNOWLEDGE, 0xff);
  expect([bench.read(edu.INTERRUPT_STATUS), pin]).toEqual([0, [true, false]]);
  expect(bench.device.config.read(pci.STATUS, 2)).toBe(0x10);
});

test('with MSI each raise is a message, and the pin stays down', () => {
  const bench = new Bench();
  bench.enableMsi();
  bench.write(edu.INTERRUPT_RAISE, 1);
  bench.write(edu.INTERRUPT_RAISE, 1);
  expect(bench.port.messages).toEqual([
    { high: 0, low: 0xfee00000, data: 0x41 },
    { high: 0, low: 0xfee00000, data: 0x41 },
  ]);
  expect(bench.device.intxAsserted).toBe(false);
});

test('an INTx interrupt acknowledged under MSI does not come back', () => {
  const bench = new Bench();
  const msi = bench.device.config.capability(pci.CAPABILITY_MSI) + pci.MSI_CONTROL;
  bench.write(edu.INTERRUPT_RAISE, 1);
  bench.enableMsi();
  bench.write(edu.INTERRUPT_ACKNOWLEDGE, 1);
  bench.device.config.write(msi, 2, 0);
  expect([bench.device.intxAsserted, bench.port.messages]).toEqual([false, []]);
});

test('DMA registers: 4-byte writes clear the high half, and a command without start is dropped', () => {
  const bench = new Bench();
  bench.write64(edu.DMA_SOURCE, 0x1122334455667788n);
  expect(bench.read64(edu.DMA_SOURCE)).toBe(0x1122334455667788n);
  expect(bench.read(edu.DMA_SOURCE)).toBe(0x55667788);
  bench.write(edu.DMA_SOURCE, 9);
  bench.write(edu.DMA_SOURCE + 4, 7);
  bench.device.writeBar(0, edu.DMA_SOURCE, 2, 1);
  expect(bench.read64(edu.DMA_SOURCE)).toBe(9n);
  bench.write64(edu.DMA_COMMAND, 2n);
  expect([bench.read64(edu.DMA_COMMAND), bench.port.clock.pending]).toEqual([0n, 0]);
});

test('a DMA moves data in and out through the buffer, and takes 100 ms', () => {
  const bench = new Bench();
  bench.port.map(NO_PASID, 0x12_3456_7, 3);
  bench.port.map(NO_PASID, 0x12_3456_8, 5);
  const data = Uint8Array.from({ length: 100 }, (_, i) => i + 1);
  bench.port.memory.set(data.subarray(0, 50), 4 * PAGE - 50);
  bench.port.memory.set(data.subarray(50), 5 * PAGE);
  bench.start(0x12_3456_8000n - 50n, EDU_BUFFER + 7, 100, 0x5);
  expect(bench.read64(edu.DMA_COMMAND)).toBe(5n);
  bench.write64(edu.DMA_SOURCE, 0n);
  expect(bench.read64(edu.DMA_SOURCE)).toBe(0x12_3456_8000n - 50n);
  bench.port.clock.idle();
  expect(bench.port.clock.now).toBe(100_000_000);
  expect(bench.read64(edu.DMA_COMMAND)).toBe(4n);
  expect(bench.read(edu.INTERRUPT_STATUS)).toBe(0x100);
  bench.dma(EDU_BUFFER + 7, 0x12_3456_7000n, 100, 0x3);
  expect(bench.port.memory.slice(3 * PAGE, 3 * PAGE + 100)).toEqual(data);
  expect(bench.read(edu.INTERRUPT_STATUS)).toBe(0x100);
});

test('what is refused reads as zeros page by page, and is lost in the other direction', () => {
  const bench = new Bench();
  // Page 0x11 of 0x10 to 0x12 is missing.
  bench.port.map(NO_PASID, 0x10, 1);
  bench.port.map(NO_PASID, 0x12, 2);
  bench.port.memory.fill(0xaa, 0, 8 * PAGE);
  bench.dma(0x10000, EDU_BUFFER, PAGE, 1);
  bench.port.memory.fill(0xbb, PAGE, 3 * PAGE);
  const start = 0x11000 - 100;
  bench.dma(start, EDU_BUFFER, PAGE, 1);
  bench.port.map(NO_PASID, 0x20, 4);
  bench.dma(EDU_BUFFER, 0x20000, PAGE, 3);
  const copy = bench.port.memory.slice(4 * PAGE, 5 * PAGE);
  expect(copy.subarray(0, 100).every((byte) => byte === 0xbb)).toBe(true);
  expect(copy.subarray(100).every((byte) => byte === 0)).toBe(true);
  // Over the hole: the last 100 bytes come from page 0x12 again.
  bench.dma(0x11000 + 100, EDU_BUFFER, PAGE, 1);
  bench.dma(EDU_BUFFER, 0x20000, PAGE, 3);
  const over = bench.port.memory.slice(4 * PAGE, 5 * PAGE);
  expect(over.subarray(0, PAGE - 100).every((byte) => byte === 0)).toBe(true);
  expect(over.subarray(PAGE - 100).every((byte) => byte === 0xbb)).toBe(true);
  // Writing: page 0x11 takes nothing, page 0x12 takes its part.
  bench.port.memory.fill(0x11, PAGE, 3 * PAGE);
  bench.dma(EDU_BUFFER, 0x11000 + 100, PAGE, 3);
  const written = bench.port.memory.slice(2 * PAGE, 3 * PAGE);
  expect(written.subarray(0, 100).every((byte) => byte === 0xbb)).toBe(true);
  expect(written.subarray(100).every((byte) => byte === 0x11)).toBe(true);
  expect(bench.read64(edu.DMA_COMMAND)).toBe(2n);
});

test('without Bus Master Enable nothing is asked, zeros arrive, and the command completes', () => {
  const bench = new Bench();
  bench.port.map(NO_PASID, 0x10, 1);
  bench.port.memory.fill(0xaa, PAGE, 2 * PAGE);
  bench.dma(0x10000, EDU_BUFFER, 16, 1);
  bench.device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
  bench.dma(0x10000, EDU_BUFFER, 16, 1);
  expect(bench.port.requests).toHaveLength(1);
  bench.device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  bench.dma(EDU_BUFFER, 0x10000, 16, 3);
  expect(bench.port.memory.slice(PAGE, PAGE + 17)).toEqual(Uint8Array.of(...new Array(16).fill(0), 0xaa));
});

test.each([
  ['before the buffer', EDU_BUFFER - 1, 4],
  ['past its end', EDU_BUFFER + 4090, 7],
  ['far away', 0, 4],
  ['too long', EDU_BUFFER, 4097],
])('a DMA %s moves nothing and completes (QEMU ends its process here)', (_name, inside, count) => {
  const bench = new Bench();
  bench.port.map(NO_PASID, 0x10, 1);
  bench.dma(0x10000, inside, count, 5);
  bench.write(edu.INTERRUPT_ACKNOWLEDGE, 0x100);
  bench.dma(inside, 0x10000, count, 7);
  expect(bench.port.requests).toEqual([]);
  expect([bench.read64(edu.DMA_COMMAND), bench.read(edu.INTERRUPT_STATUS)]).toEqual([6n, 0x100]);
});

test('the address mask, 28 bits by default', () => {
  const bench = new Bench({});
  bench.port.map(NO_PASID, 0x10, 1);
  bench.port.memory.fill(0x77, PAGE, PAGE + 8);
  bench.dma(0xff_f001_0000n, EDU_BUFFER, 8, 1);
  expect(bench.port.requests).toEqual([{ kind: 'read', pasid: NO_PASID, page: 0x10, access: 0 }]);
  expect(() => new Edu({ dmaMask: -1n })).toThrow(RangeError);
  expect(() => new Edu({ dmaMask: 1n << 64n })).toThrow(RangeError);
});

test('a reset stops what runs and clears the registers (QEMU keeps them)', () => {
  const bench = new Bench();
  bench.port.map(NO_PASID, 0x10, 1);
  bench.write(edu.LIVENESS, 1);
  bench.write(edu.STATUS, 0x80);
  bench.write(edu.INTERRUPT_RAISE, 1);
  bench.write(edu.FACTORIAL, 5);
  bench.start(0x10000, EDU_BUFFER, 8, 5);
  bench.device.reset();
  expect(bench.device.intxAsserted).toBe(false);
  bench.port.clock.idle();
  expect(bench.port.requests).toEqual([]);
  bench.device.config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE);
  expect([0x04, 0x08, 0x20, 0x24, 0x80, 0x88, 0x90, 0x98].map((at) => bench.read(at))).toEqual(
    new Array(8).fill(0),
  );
});
