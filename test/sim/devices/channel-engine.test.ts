/** The channel engine: its channels' requests carry their PASIDs, and its portals take commands. */
import { NO_PASID } from '../../../lib/sim/bus';
import { ChannelEngine } from '../../../lib/sim/devices/channel-engine';
import * as reg from '../../../lib/sim/devices/channel-engine-registers';
import * as engine from '../../../lib/sim/devices/dma-engine-registers';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { FakePort } from './fake-port';

const E = engine.dmaEngine;
const { DEFAULT_PASID, ABORT_PASID, RESET, WAITING } = reg.channelControl;
const VALID = reg.DEFAULT_PASID_VALID;

function bench() {
  const port = new FakePort();
  const device = new ChannelEngine();
  device.connect(0x0030, port);
  const { config } = device;
  config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
  const pasid = config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
  config.write(pasid + pci.PASID_CONTROL, 2, pci.PASID_CONTROL_ENABLE);
  const control = (channel: number, register: number, value: number) =>
    device.writeBar(4, 16 * channel + register, 4, value);
  const waiting = (channel: number) => device.readBar(4, 16 * channel + WAITING, 4);
  const fill = (channel: number, page: number, pasidRegister = 0) => {
    const at = channel * reg.CHANNEL_PAGE;
    device.writeBar64(0, at + E.DESTINATION, 0, page * 4096);
    device.writeBar(0, at + E.LENGTH, 4, 16);
    device.writeBar(0, at + E.PATTERN, 4, 0x5a5a5a5a);
    device.writeBar(0, at + E.PASID, 4, pasidRegister);
    device.writeBar(0, at + E.CONTROL, 4, engine.CONTROL_START | engine.OPERATION_FILL);
  };
  const status = (channel: number) => device.readBar(0, channel * reg.CHANNEL_PAGE + E.STATUS, 4);
  return { port, device, control, waiting, fill, status };
}

function command(pasid: number, page: number): Uint8Array {
  const bytes = new Uint8Array(reg.COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(reg.channelCommand.PASID, pasid, true);
  view.setUint32(reg.channelCommand.CONTROL, engine.OPERATION_FILL, true);
  view.setUint32(reg.channelCommand.DESTINATION, page * 4096, true);
  view.setUint32(reg.channelCommand.LENGTH, 16, true);
  view.setUint32(reg.channelCommand.PATTERN, 0x5a5a5a5a, true);
  return bytes;
}

const written = (port: FakePort, frame: number) => port.memory[frame * 4096] === 0x5a;

test('who it is', () => {
  const { device } = bench();
  expect(device.config.read(0, 4)).toBe(0x11eb1234);
  expect([0, 2, 4].map((bar) => device.barSize(bar))).toEqual([8 * 4096, 8 * 4096, 4096]);
  expect(device.portalBar).toBe(2);
  expect(() => new ChannelEngine({ channels: 3 })).toThrow(RangeError);
});

test('requests carry the PASID they name, else the channel’s, else none', () => {
  const { port, control, fill } = bench();
  port.map(NO_PASID, 0x10, 1);
  port.map(7, 0x10, 2);
  port.map(9, 0x10, 3);
  fill(0, 0x10);
  port.clock.idle();
  expect([1, 2, 3].map((frame) => written(port, frame))).toEqual([true, false, false]);
  control(1, DEFAULT_PASID, (VALID | 7) >>> 0);
  fill(1, 0x10);
  port.clock.idle();
  expect([2, 3].map((frame) => written(port, frame))).toEqual([true, false]);
  fill(1, 0x10, (engine.PASID_ENABLE | 9) >>> 0);
  port.clock.idle();
  expect(written(port, 3)).toBe(true);
});

test('a portal takes commands of 64 bytes while its queue has room', () => {
  const { port, device, waiting } = bench();
  port.map(5, 0x10, 1);
  expect(device.enqueue(0, 0, command(5, 0x10))).toBeUndefined();
  expect(device.enqueue(2, 0, new Uint8Array(32))).toBeUndefined();
  for (let i = 0; i < reg.PORTAL_DEPTH; i++) expect(device.enqueue(2, 4096, command(5, 0x10))).toBe(true);
  expect(device.enqueue(2, 4096, command(5, 0x10))).toBe(false);
  expect([waiting(0), waiting(1)]).toEqual([0, reg.PORTAL_DEPTH]);
  port.clock.idle();
  expect([waiting(1), written(port, 1)]).toEqual([0, true]);
});

test('ABORT_PASID ends the commands of one PASID, and the others go on', () => {
  const { port, device, control, waiting, fill, status } = bench();
  port.map(5, 0x10, 1);
  port.map(6, 0x10, 2);
  for (const pasid of [5, 6, 5]) device.enqueue(2, 0, command(pasid, 0x10));
  fill(0, 0x10, (engine.PASID_ENABLE | 5) >>> 0);
  control(0, ABORT_PASID, 5);
  expect([waiting(0), status(0) >>> engine.STATUS_ERROR_SHIFT]).toEqual([1, engine.ERROR_ABORTED]);
  port.clock.idle();
  expect([1, 2].map((frame) => written(port, frame))).toEqual([false, true]);
});

test('a channel that is reset, or gets another PASID, does nothing more of what it was told', () => {
  for (const register of [RESET, DEFAULT_PASID]) {
    const { port, device, control, waiting, fill } = bench();
    control(0, DEFAULT_PASID, (VALID | 7) >>> 0);
    port.map(7, 0x10, 1);
    port.map(5, 0x10, 2);
    fill(0, 0x10);
    device.enqueue(2, 0, command(5, 0x10));
    control(0, register, register === RESET ? 1 : (VALID | 8) >>> 0);
    expect(waiting(0)).toBe(0);
    port.clock.idle();
    expect([1, 2].map((frame) => written(port, frame))).toEqual([false, false]);
    expect(device.readBar(4, DEFAULT_PASID, 4)).toBe((VALID | (register === RESET ? 7 : 8)) >>> 0);
  }
});

describe('with ATS and page requests', () => {
  const FLAGS = engine.CONTROL_ATS | engine.CONTROL_PAGE_REQUESTS;

  function enabled() {
    const made = bench();
    const { config } = made.device;
    const pri = config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    const ats = config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    config.write(pri + pci.PRI_ALLOCATION, 4, 256);
    config.write(pri + pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
    config.write(ats + pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    const start = (channel: number, page: number) => {
      const at = channel * reg.CHANNEL_PAGE;
      made.device.writeBar64(0, at + E.DESTINATION, 0, page * 4096);
      made.device.writeBar(0, at + E.LENGTH, 4, 16);
      made.device.writeBar(0, at + E.PATTERN, 4, 0x5a5a5a5a);
      made.device.writeBar(0, at + E.CONTROL, 4, engine.CONTROL_START | engine.OPERATION_FILL | FLAGS);
    };
    return { ...made, start };
  }

  test('channels’ page requests have group indices of their own, and each gets its answer', () => {
    const { port, device, control, start, status } = enabled();
    for (const channel of [0, 1]) {
      control(channel, DEFAULT_PASID, (VALID | (7 + channel)) >>> 0);
      start(channel, 0x10);
    }
    port.clock.idle();
    expect(port.pageRequests.map(({ pasid }) => pasid)).toEqual([7, 8]);
    const [first, second] = port.pageRequests.map(({ prgIndex }) => prgIndex);
    expect(first).not.toBe(second);
    port.map(8, 0x10, 1);
    device.pageGroupResponse(8, second, 0);
    port.clock.idle();
    expect([written(port, 1), status(0) & engine.STATUS_WAITING]).toEqual([true, engine.STATUS_WAITING]);
    device.pageGroupResponse(7, first, 1);
    port.clock.idle();
    expect(status(0) >>> engine.STATUS_ERROR_SHIFT).toBe(engine.ERROR_PAGE_INVALID);
  });

  test('what a channel has cached under its default PASID goes with an invalidation of that', () => {
    const { port, device, control, start } = enabled();
    control(0, DEFAULT_PASID, (VALID | 7) >>> 0);
    port.map(7, 0x10, 1);
    start(0, 0x10);
    port.clock.idle();
    port.map(7, 0x10, 2);
    device.invalidateTranslations(7, 0, 0x10000, 4096, false);
    start(0, 0x10);
    port.clock.idle();
    expect(written(port, 2)).toBe(true);
  });

  test('an answer to what a channel asked before its reset is nobody’s', () => {
    const { port, device, control, start, status } = enabled();
    start(0, 0x10);
    port.clock.idle();
    const [{ pasid, prgIndex }] = port.pageRequests;
    control(0, RESET, 1);
    start(0, 0x11);
    port.clock.idle();
    expect(port.pageRequests[1].prgIndex).not.toBe(prgIndex);
    device.pageGroupResponse(pasid, prgIndex, 1);
    port.clock.idle();
    expect(status(0) & engine.STATUS_WAITING).toBe(engine.STATUS_WAITING);
  });
});
