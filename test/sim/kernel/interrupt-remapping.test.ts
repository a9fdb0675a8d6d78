/** Interrupts of devices, remapped: the entries the kernel makes, and what a device cannot send. */
import * as pci from '../../../lib/sim/devices/pci-registers';
import {
  GCMD_CFI,
  GCMD_REG,
  GSTS_REG,
  IR_COMPATIBILITY_BLOCKED,
  IR_INDEX_TOO_LARGE,
  IR_NOT_PRESENT,
  IR_REQUEST_RESERVED,
  IR_SOURCE,
  IRTA_REG,
  RTADDR_REG,
} from '../../../lib/sim/vtd';
import * as uapi from '../../../lib/uapi';
import { Bench, PROBE_BDF } from './bench';
import { ProbeFunction } from './probe-function';

const MSI = uapi.VFIO_PCI_MSI_IRQ_INDEX;
const MSIX = uapi.VFIO_PCI_MSIX_IRQ_INDEX;
const RID = 0x30;
const OTHER_RID = 0x38;

let bench: Bench;
let other: ProbeFunction;
beforeEach(() => {
  const probe = new ProbeFunction();
  other = new ProbeFunction();
  bench = new Bench({ devices: { [PROBE_BDF]: probe, '0000:00:07.0': other } }, probe);
  bench.bind();
  other.config.write(pci.COMMAND, 2, pci.COMMAND_BUS_MASTER | pci.COMMAND_MEMORY_SPACE);
});

/** The table, from the register. */
const table = () => (bench.machine.unit.read32(IRTA_REG) & ~0xfff) >>> 0;

/** Present entries: index, and the 64-bit halves in hexadecimal, the high one first. */
function entries(): [number, string, string][] {
  const words = new Int32Array(4 * 65536);
  bench.machine.memory.readWords(table(), words);
  const quad = (at: number) =>
    ((BigInt(words[at + 1]! >>> 0) << 32n) | BigInt(words[at]! >>> 0)).toString(16).padStart(16, '0');
  const indices = Array.from({ length: 65536 }, (_, i) => i).filter((i) => words[4 * i]! & 1);
  return indices.map((i) => [i, quad(4 * i + 2), quad(4 * i)]);
}

const word = (value: number) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];

/** Sends a message and lets it arrive. */
function send(from: ProbeFunction, address: number, data: number): void {
  expect(from.write(address, word(data))).toBe(true);
  bench.machine.idle();
}

/** The first MSI-X message as the kernel programmed it. */
function msixMessage(): { address: number; data: number } {
  const read = (offset: number) => bench.probe.readBar(1, 0x40 + offset, 4);
  return { address: read(0), data: read(8) };
}

describe('the unit', () => {
  test('has everything on that Linux turns on, and CFI off', () => {
    expect(bench.machine.unit.read32(GSTS_REG)).toBe(0xc700_0000);
    expect(bench.machine.unit.read32(IRTA_REG) & 0xfff).toBe(0x00f);
    expect(table()).toBeGreaterThan(0);
    expect(bench.machine.unit.read32(RTADDR_REG)).not.toBe(0);
  });
});

describe('a vector of MSI-X', () => {
  test('has an entry of its own that names the device, as Linux makes it', () => {
    expect(entries()).toEqual([]);
    bench.interrupts(MSIX, [bench.eventfd(), bench.eventfd()]);
    const found = entries();
    expect(found.map(([index]) => index)).toEqual([0, 1]);
    // Linux 7.3.4 for the device of this address: 0000000000040030 0000010000230009.
    for (const [, high, low] of found) {
      expect(high).toBe('0000000000040030');
      expect(low).toMatch(/^0000..0000..0009$/);
    }
    expect(found[0][2]).not.toBe(found[1][2]);
    expect(msixMessage()).toEqual({ address: 0xfee0_0018, data: 0 });
  });

  test('arrives, and is blocked once its entry is gone', () => {
    const event = bench.eventfd();
    bench.interrupts(MSIX, [event]);
    const { address, data } = msixMessage();
    bench.probe.interrupt(0);
    bench.machine.idle();
    expect(bench.count(event)).toBe(1);
    bench.interrupts(MSIX, []);
    expect(entries()).toEqual([]);
    send(bench.probe, address, data);
    expect(bench.machine.refusedInterrupts).toEqual([{ rid: RID, index: 0, reason: IR_NOT_PRESENT }]);
  });
});

describe('vectors of MSI', () => {
  test('are a block of entries, told apart by the subhandle', () => {
    // One entry in the way: a block of four begins at a multiple of four.
    const device = bench.machine.system.devices.get('0000:00:07.0')!;
    const single = bench.machine.system.messagesOf(device).allocateBlock(1, () => {})!;
    const events = Array.from({ length: 4 }, () => bench.eventfd());
    bench.interrupts(MSI, events);
    expect(entries().map(([index]) => index)).toEqual([0, 4, 5, 6, 7]);
    const msi = bench.probe.config.capability(pci.CAPABILITY_MSI);
    expect(bench.probe.config.read(msi + pci.MSI_ADDRESS, 4)).toBe(0xfee0_0098);
    for (const vector of [3, 1, 1]) bench.probe.interrupt(vector);
    bench.machine.idle();
    expect(events.map((event) => bench.count(event))).toEqual([0, 2, 0, 1]);
    send(bench.probe, 0xfee0_0098, 4);
    expect(bench.machine.refusedInterrupts).toEqual([{ rid: RID, index: 8, reason: IR_NOT_PRESENT }]);
    bench.interrupts(MSI, []);
    expect(entries().map(([index]) => index)).toEqual([0]);
    single.free();
    expect(entries()).toEqual([]);
  });
});

describe('a forged message is blocked and logged', () => {
  let event: number;
  let address: number;
  beforeEach(() => {
    event = bench.eventfd();
    bench.interrupts(MSIX, [event]);
    ({ address } = msixMessage());
  });
  afterEach(() => {
    expect(bench.count(event)).toBe(0);
    expect(bench.machine.system.interrupts.spurious).toBe(0);
    expect(bench.machine.refusedDma).toEqual([]);
  });
  const logged = () => bench.machine.refusedInterrupts;

  test('in compatibility format, with the vector and destination of another device', () => {
    const [, , low] = entries()[0];
    const vector = parseInt(low.slice(10, 12), 16);
    const destination = parseInt(low.slice(4, 6), 16);
    send(other, 0xfee0_0000 + (destination << 12), vector);
    expect(logged()).toEqual([{ rid: OTHER_RID, index: 0, reason: IR_COMPATIBILITY_BLOCKED }]);
  });

  test('that uses the entry of another device', () => {
    send(other, address, 0);
    expect(logged()).toEqual([{ rid: OTHER_RID, index: 0, reason: IR_SOURCE }]);
  });

  test('that uses an entry nobody has', () => {
    send(bench.probe, address, 5);
    send(other, 0xfee0_0018 + (0x1234 << 5), 1);
    expect(logged()).toEqual([
      { rid: RID, index: 5, reason: IR_NOT_PRESENT },
      { rid: OTHER_RID, index: 0x1235, reason: IR_NOT_PRESENT },
    ]);
  });

  test('that is beyond the table, or malformed', () => {
    send(bench.probe, 0xfee0_0018 + (0x7fff << 5) + 4, 1);
    send(other, address, 0x1_0000);
    expect(logged()).toEqual([
      { rid: RID, index: 0, reason: IR_INDEX_TOO_LARGE },
      { rid: OTHER_RID, index: 0, reason: IR_REQUEST_RESERVED },
    ]);
  });
});

test('CFI lets messages in compatibility format pass', () => {
  const { unit, system } = bench.machine;
  unit.write32(GCMD_REG, (unit.read32(GSTS_REG) & 0x8600_0000) | GCMD_CFI);
  send(other, 0xfee0_5000, 0x77);
  expect([system.interrupts.spurious, bench.machine.refusedInterrupts]).toEqual([1, []]);
});

describe('without interrupt remapping', () => {
  test('a unit says so, devices cannot be bound, and messages are what they were', () => {
    const plain = new Bench({ iommu: { interruptRemapping: false } });
    const { unit, system } = plain.machine;
    expect([unit.capabilities.IR, unit.read32(GSTS_REG)]).toEqual([0, 0xc400_0000]);
    unit.write64(IRTA_REG, 0x12, 0x3456_700f);
    expect(unit.read32(IRTA_REG) + unit.read32(IRTA_REG + 4)).toBe(0);
    plain.vfio = plain.open('/dev/vfio/devices/vfio0');
    expect(plain.result(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: plain.fd }, plain.vfio)).toBe('EPERM');
    const device = system.devices.get(PROBE_BDF)!;
    const vector = system.messagesOf(device).allocateBlock(1, () => {})!;
    expect(vector.addressLow & 0x10).toBe(0);
  });
});
