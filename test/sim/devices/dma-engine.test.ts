import { NO_PASID } from '../../../lib/sim/bus';
import * as reg from '../../../lib/sim/devices/dma-engine-registers';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { Bench, DONE, ended, PASID, pattern } from './dma-engine-bench';
import { PAGE } from './fake-port';

const R = reg.dmaEngine;
const ATS = reg.CONTROL_ATS;
const PRI = reg.CONTROL_PAGE_REQUESTS;
const { OPERATION_COPY: COPY, OPERATION_FILL: FILL, OPERATION_READ: READ, OPERATION_WRITE: WRITE } = reg;

test('who it is', () => {
  const { device } = new Bench();
  expect(device.config.read(0, 4)).toBe(0x11ea1234);
  expect(device.readBar(0, R.ID, 4)).toBe(reg.DMA_ENGINE_ID);
  expect(device.resettable).toBe(true);
  const pasid = device.config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
  expect(device.config.read(pasid + pci.PASID_CAPABILITY, 2)).toBe(0x1406);
});

describe('registers', () => {
  test('keep the bits they have, and other widths do nothing', () => {
    const bench = new Bench();
    for (let at = 0; at < 0x60; at += 4) if (at !== R.CONTROL) bench.write(at, 0xffffffff);
    bench.write(R.CONTROL, 0xfffffffc);
    const kept: [number, number][] = [
      [R.ID, reg.DMA_ENGINE_ID],
      [R.SOURCE + 4, 0xffffffff],
      [R.PASID, 0x800fffff],
      [R.CONTROL, 0x3f30],
      [R.STATUS, 0],
      [R.FAULT_ADDRESS, 0],
      [R.COMPLETED, 0],
      [R.PREFETCH, 0xff],
      [R.INTERRUPT_ENABLE, 3],
      [R.TRANSLATIONS, 0],
      [0x50, 0],
    ];
    for (const [at, value] of kept) expect([at, bench.read(at)]).toEqual([at, value]);
    bench.device.writeBar(0, R.LENGTH, 2, 1);
    expect(bench.read(R.LENGTH)).toBe(0xffffffff);
    expect(bench.device.readBar(0, R.LENGTH, 2)).toBe(0);
    expect(bench.device.readBar(2, 0x400, 4)).toBe(0);
  });

  test('the buffer takes every width', () => {
    const bench = new Bench();
    bench.device.writeBar64(0, R.BUFFER, 0x88776655, 0x44332211);
    bench.device.writeBar(0, R.BUFFER + 3, 1, 0xaa);
    bench.device.writeBar(0, R.BUFFER + 4, 2, 0xbbcc);
    expect(bench.read64(R.BUFFER)).toBe(0x8877bbcc * 2 ** 32 + 0xaa332211);
    expect(bench.device.readBar(0, R.BUFFER + 4, 1)).toBe(0xcc);
    expect(bench.device.readBar(0, R.BUFFER + 6, 2)).toBe(0x8877);
    bench.write(0xffc, 0x12345678);
    expect(bench.read(0xffc)).toBe(0x12345678);
  });

  test('are locked while a command runs', () => {
    const bench = new Bench();
    bench.start(FILL, 0, 0x10000, 16);
    expect(bench.status).toEqual([reg.STATUS_BUSY, 0]);
    for (const at of [R.SOURCE, R.DESTINATION, R.LENGTH, R.PASID, R.PREFETCH, R.PATTERN]) {
      const before = bench.read(at);
      bench.write(at, 0x77);
      expect(bench.read(at)).toBe(before);
    }
    bench.write(R.CONTROL, reg.CONTROL_START | COPY);
    expect(bench.read(R.CONTROL)).toBe(FILL);
  });
});

describe('untranslated requests', () => {
  test.each([NO_PASID, 0, 0xfffff])('a copy with PASID %p', (pasid) => {
    const bench = new Bench();
    bench.port.map(pasid, 0x10, 1);
    bench.port.map(pasid, 0x11, 2);
    bench.port.map(pasid, 0x1_0000_0, 3);
    bench.port.map(pasid, 0x1_0000_1, 4);
    const data = pattern(6000);
    bench.port.memory.set(data, PAGE + 100);
    bench.run(COPY, 0x10064, 0x1_0000_0800, 6000, pasid);
    expect(bench.status).toEqual(DONE);
    expect(bench.read(R.COMPLETED)).toBe(6000);
    expect(bench.port.memory.slice(3 * PAGE + 0x800, 3 * PAGE + 0x800 + 6000)).toEqual(data);
    expect(new Set(bench.port.requests.map((request) => request.pasid))).toEqual(new Set([pasid]));
    expect(bench.port.translations).toEqual([]);
    expect(bench.messages).toEqual([0x50]);
  });

  test('fill goes on with its pattern across pages', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.port.map(PASID, 0x11, 2);
    bench.write(R.PATTERN, 0x44332211);
    bench.run(FILL, 0, 0x10ffe, 7);
    expect([...bench.port.memory.subarray(2 * PAGE - 3, 2 * PAGE + 6)]).toEqual([
      0, 0x11, 0x22, 0x33, 0x44, 0x11, 0x22, 0x33, 0,
    ]);
  });

  test('into the buffer and out of it', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.port.map(PASID, 0x11, 2);
    const data = pattern(2048);
    bench.port.memory.set(data, PAGE + 3000);
    bench.run(READ, 0x10000 + 3000, 0, 2048);
    expect([...data.subarray(0, 4)]).toEqual(
      [0, 1, 2, 3].map((i) => bench.device.readBar(0, R.BUFFER + i, 1)),
    );
    bench.port.memory.fill(0);
    bench.run(WRITE, 0, 0x10000 + 2500, 2048);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.memory.slice(PAGE + 2500, PAGE + 2500 + 2048)).toEqual(data);
  });

  test('a refusal ends the command with its address and what was done before', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.port.map(PASID, 0x11, 2);
    bench.port.map(PASID, 0x20, 3, { write: true });
    bench.port.map(PASID, 0x21, 4, { write: false });
    bench.run(COPY, 0x10000, 0x20800, 2 * PAGE);
    expect(bench.status).toEqual(ended(reg.ERROR_REFUSED, true));
    expect(bench.read64(R.FAULT_ADDRESS)).toBe(0x21000);
    expect(bench.read(R.COMPLETED)).toBe(0x800);
    expect(bench.messages).toEqual([0x51]);
    bench.run(READ, 0x3_0000_0010, 0, 8);
    expect(bench.status).toEqual(ended(reg.ERROR_REFUSED));
    expect(bench.read64(R.FAULT_ADDRESS)).toBe(0x3_0000_0010);
    expect(bench.read(R.COMPLETED)).toBe(0);
    bench.write(R.STATUS, reg.STATUS_DONE);
    expect(bench.status).toEqual([0, reg.ERROR_REFUSED]);
  });

  test.each([
    ['no length', FILL, 0, 0, 0, PASID],
    ['too long', FILL, 0, 0, (1 << 24) + 1, PASID],
    ['longer than the buffer', READ, 0, 0, 2049, PASID],
    ['past the last address', FILL, 0, 2 ** 64 - PAGE, PAGE + 1, PASID],
    ['privileged without PASID', FILL | reg.CONTROL_PRIVILEGED, 0, 0, 1, NO_PASID],
    ['execute without PASID', READ | reg.CONTROL_EXECUTE, 0, 0, 1, NO_PASID],
  ])('%s is no command', (_name, control, source, destination, length, pasid) => {
    const bench = new Bench();
    bench.run(control, source, destination, length, pasid);
    expect(bench.status).toEqual(ended(reg.ERROR_COMMAND));
    expect([bench.port.requests, bench.messages]).toEqual([[], [0x51]]);
  });

  test('the last page of all addresses', () => {
    const bench = new Bench();
    bench.port.map(PASID, 2 ** 52 - 1, 1);
    bench.run(WRITE, 0, 2 ** 64 - PAGE, 2048);
    expect(bench.status).toEqual(DONE);
  });

  test('interrupts only as enabled', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.write(R.INTERRUPT_ENABLE, reg.INTERRUPT_ERROR);
    bench.run(FILL, 0, 0x10000, 4);
    bench.run(FILL, 0, 0x20000, 4);
    expect(bench.messages).toEqual([0x51]);
    bench.write(R.INTERRUPT_ENABLE, reg.INTERRUPT_SUCCESS);
    bench.run(FILL, 0, 0x10000, 4);
    bench.run(FILL, 0, 0x20000, 4);
    expect(bench.messages).toEqual([0x51, 0x50]);
  });
});

test('ABORT stops a command at any event, and the next one runs alone', () => {
  for (const events of [0, 1, 2, 3]) {
    const bench = new Bench();
    for (let page = 0x10; page < 0x18; page++) bench.port.map(PASID, page, page);
    bench.start(FILL | ATS, 0, 0x10000, 4 * PAGE);
    for (let i = 0; i < events; i++) bench.port.clock.step();
    bench.write(R.CONTROL, reg.CONTROL_ABORT);
    expect(bench.status).toEqual(ended(reg.ERROR_ABORTED));
    bench.port.requests.length = 0;
    bench.run(FILL | ATS, 0, 0x14000, 4 * PAGE);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.requests.map(({ page }) => page)).toEqual([0x14, 0x15, 0x16, 0x17]);
    expect(bench.messages).toEqual([0x51, 0x50]);
    // With nothing running, ABORT does nothing.
    bench.write(R.CONTROL, reg.CONTROL_ABORT);
    expect(bench.status).toEqual(DONE);
  }
});

describe('reset', () => {
  test.each([1, 2, 3, 4])('after %p events nothing more happens', (events) => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.start(FILL | ATS | PRI, 0, 0x10000, 4 * PAGE);
    for (let i = 0; i < events; i++) bench.port.clock.step();
    const { config } = bench.device;
    const before =
      bench.port.requests.length + bench.port.translations.length + bench.port.pageRequests.length;
    const control = config.capability(pci.CAPABILITY_EXPRESS) + pci.EXPRESS_DEVICE_CONTROL;
    config.write(control, 2, pci.EXPRESS_INITIATE_FLR);
    bench.port.clock.idle();
    const after =
      bench.port.requests.length + bench.port.translations.length + bench.port.pageRequests.length;
    expect([after, bench.messages]).toEqual([before, []]);
    bench.enable();
    expect(bench.status).toEqual([0, 0]);
    expect([R.DESTINATION, R.LENGTH, R.CONTROL, R.TRANSLATIONS].map((at) => bench.read(at))).toEqual([
      0, 0, 0, 0,
    ]);
    // And the device works as before.
    bench.port.map(PASID, 0x10, 2);
    bench.write(R.PATTERN, 0x22222222);
    bench.run(FILL | ATS, 0, 0x10000, 4);
    expect([bench.status, bench.port.memory[2 * PAGE]]).toEqual([DONE, 0x22]);
  });
});
