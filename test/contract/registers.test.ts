import { readFileSync } from 'node:fs';
import { defineRegisters } from '../../lib';
import { backend, errorOf, openEdu } from './support';

const EDU = defineRegisters({
  IDENTIFICATION: {
    offset: 0x00,
    width: 32,
    access: 'ro',
    fields: { MAJOR: [31, 24], MINOR: [23, 16], MAGIC: [7, 0] },
  },
  LIVENESS: { offset: 0x04, width: 32 },
  FACTORIAL: { offset: 0x08, width: 32 },
  STATUS: { offset: 0x20, width: 32, fields: { COMPUTING: 0, RAISE_INTERRUPT: 7 } },
  DMA_SOURCE: { offset: 0x80, width: 64 },
  DMA_DESTINATION: { offset: 0x88, width: 64, fields: { OFFSET: [11, 0], PAGE: [63, 12] } },
  DMA_WORDS: { offset: 0x90, width: 64, count: 2 },
});

function openRegisters() {
  const { device } = openEdu();
  const bar = device.region('bar0');
  return { device, bar, registers: bar.registers(EDU) };
}

test('declared registers are read, written and updated', () => {
  const { registers } = openRegisters();
  expect(registers.IDENTIFICATION.read()).toEqual({ MAJOR: 1, MINOR: 0, MAGIC: 0xed });
  registers.LIVENESS.write(0x12345678);
  expect(registers.LIVENESS.read()).toBe(0xedcba987);
  registers.STATUS.update({ RAISE_INTERRUPT: 1 });
  expect(registers.STATUS.read()).toEqual({ COMPUTING: 0, RAISE_INTERRUPT: 1 });
  registers.STATUS.update({ RAISE_INTERRUPT: 0 });
  expect(registers.STATUS.field('RAISE_INTERRUPT')).toBe(0);
});

test('registers of 64 bits are one access', () => {
  const { bar, registers } = openRegisters();
  registers.DMA_SOURCE.write(0x1234_5678_9abc_def0n);
  expect(bar.read64(0x80)).toBe(0x1234_5678_9abc_def0n);
  registers.DMA_DESTINATION.write({ PAGE: 0x8765_4321n, OFFSET: 0xabc });
  expect(registers.DMA_DESTINATION.read()).toEqual({ OFFSET: 0xabc, PAGE: 0x8765_4321n });
  registers.DMA_DESTINATION.update({ OFFSET: 1 });
  expect(registers.DMA_DESTINATION.readRaw()).toBe(0x8765_4321_001n);
  registers.DMA_WORDS.at(0).write(77);
  expect(bar.read64(0x90)).toBe(77n);
});

test('waiting for a register', async () => {
  const { registers } = openRegisters();
  registers.FACTORIAL.write(10);
  expect(await registers.STATUS.waitFor({ COMPUTING: 0 })).toEqual({ COMPUTING: 0, RAISE_INTERRUPT: 0 });
  expect(registers.FACTORIAL.read()).toBe(3628800);
  registers.FACTORIAL.write(5);
  expect(await registers.FACTORIAL.waitFor((value) => value === 120, { interval: 2 })).toBe(120);
});

test('a wait for what does not happen ends by its timeout, or by a signal', async () => {
  const { registers } = openRegisters();
  registers.LIVENESS.write(0);
  await expect(registers.STATUS.waitFor({ COMPUTING: 1 }, { timeout: 5 })).rejects.toMatchObject({
    code: 'ETIMEDOUT',
    reason: 'STATUS has not become { COMPUTING: 1 } within 5 ms: it is { COMPUTING: 0, RAISE_INTERRUPT: 0 }',
  });
  await expect(registers.LIVENESS.waitFor((value) => value === 1, { timeout: 0 })).rejects.toMatchObject({
    reason:
      'LIVENESS has not become what was waited for within 0 ms: it is 0xffffffff, all ones, as of a device that is gone',
  });
  const controller = new AbortController();
  const waiting = registers.STATUS.waitFor({ COMPUTING: 1 }, { signal: controller.signal });
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
  await expect(
    registers.STATUS.waitFor({ COMPUTING: 1 }, { signal: controller.signal }),
  ).rejects.toMatchObject({
    name: 'AbortError',
  });
  await expect(registers.STATUS.waitFor({ COMPUTING: 2 })).rejects.toThrow('does not fit in 1 bits');
  await expect(registers.STATUS.waitFor({ COMPUTING: 1 }, { timeout: -1 })).rejects.toThrow(RangeError);
});

test('registers go with their region, and stay inside it', async () => {
  const { device, bar, registers } = openRegisters();
  const waiting = registers.STATUS.waitFor({ COMPUTING: 1 });
  device.close();
  const closed = { code: 'EBADF', syscall: 'pread', reason: 'bar0 of 0000:00:04.0 is closed' };
  await expect(waiting).rejects.toMatchObject(closed);
  expect(errorOf(() => registers.STATUS.read())).toMatchObject(closed);
  expect(errorOf(() => registers.LIVENESS.write(1))).toMatchObject({ ...closed, syscall: 'pwrite' });
  expect(() => bar.registers(EDU, 2 ** 20 - 8)).toThrow('do not fit in bar0 of 0000:00:04.0');
});

test('a block of 64 bytes, where the processor has a store for it', () => {
  const { bar } = openRegisters();
  const block = new Uint8Array(64);
  const able = backend === 'simulated' || readFileSync('/proc/cpuinfo', 'utf8').includes('movdir64b');
  if (able) bar.writeBlock(0x80, block);
  else
    expect(errorOf(() => bar.writeBlock(0x80, block))).toMatchObject({
      code: 'EOPNOTSUPP',
      syscall: 'store',
    });
  expect(() => bar.writeBlock(0x88, block)).toThrow('offset 136 is not a multiple of 64');
  expect(() => bar.writeBlock(bar.size, block)).toThrow(RangeError);
  expect(() => bar.writeBlock(0, block.subarray(1))).toThrow('a block has 64 bytes, not 63');
  expect(() => bar.writeBlock(0, [] as never)).toThrow(TypeError);
  bar.close();
  expect(errorOf(() => bar.writeBlock(0x80, block))).toMatchObject({ code: 'EBADF', syscall: 'pwrite' });
});

test('configuration space is not mapped, and takes no block', () => {
  const { device } = openRegisters();
  const config = device.region('config');
  expect(errorOf(() => config.writeBlock(0, new Uint8Array(64)))).toMatchObject({ code: 'EOPNOTSUPP' });
});
