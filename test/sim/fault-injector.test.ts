/** Faults of each kind, on devices that know nothing of them. */
import { Iommu, type Device } from '../../lib';
import {
  CONTROL_ATS,
  CONTROL_PAGE_REQUESTS,
  CONTROL_START,
  dmaEngine,
  edu,
  ERROR_PAGE_REQUEST,
  ERROR_REFUSED,
  ERROR_TRANSLATION,
  Machine,
  OPERATION_FILL,
  OPERATION_READ,
  STATUS_BUSY,
  STATUS_ERROR_SHIFT,
  type FaultKind,
} from '../../lib/sim';

const ENGINE = '0000:00:05.0';
const EDU = '0000:00:04.0';
const IOVA = 0x10_0000n;

const opened: Iommu[] = [];
afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});

function setUp(bdf: string, withFaults = false) {
  const machine = new Machine();
  const iommu = Iommu.open({ backend: machine });
  opened.push(iommu);
  const device = iommu.bind(bdf, { cookie: 1 });
  const faultQueue = withFaults ? { faults: iommu.createFaultQueue() } : {};
  const space = iommu.createAddressSpace(faultQueue);
  device.attach(space);
  device.enableBusMaster();
  const buffer = iommu.allocateDma(8192);
  space.map(buffer, { iova: IOVA });
  return { machine, iommu, device, space, buffer, bar: device.region('bar0') };
}

/** Runs a command of the DMA engine, polling as some drivers do; its error code. */
function command(device: Device, operation: number, flags = 0, address = IOVA): number {
  const bar = device.region('bar0');
  bar.write64(dmaEngine.SOURCE, address);
  bar.write64(dmaEngine.DESTINATION, address);
  bar.write32(dmaEngine.LENGTH, 256);
  bar.write32(dmaEngine.PATTERN, 0x55aa55aa);
  bar.write32(dmaEngine.CONTROL, CONTROL_START | operation | flags);
  while (bar.read32(dmaEngine.STATUS) & STATUS_BUSY);
  return bar.read32(dmaEngine.STATUS) >>> STATUS_ERROR_SHIFT;
}

test('reads and writes are refused, as the root refuses them', () => {
  const { machine, device, buffer } = setUp(ENGINE);
  const faults = machine.injectFaults(ENGINE, { seed: 1 });
  faults.once('dmaError', 2);
  expect([command(device, OPERATION_FILL), command(device, OPERATION_READ)]).toEqual([
    ERROR_REFUSED,
    ERROR_REFUSED,
  ]);
  expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
  expect(command(device, OPERATION_FILL)).toBe(0);
  expect(faults.log).toEqual([
    { kind: 'dmaError', request: 'write', address: IOVA },
    { kind: 'dmaError', request: 'read', address: IOVA },
  ]);
});

test('translation requests are refused', () => {
  const { machine, device } = setUp(ENGINE, true);
  const faults = machine.injectFaults(ENGINE, { seed: 1 });
  faults.once('dmaError');
  expect(command(device, OPERATION_FILL, CONTROL_ATS)).toBe(ERROR_TRANSLATION);
  expect(command(device, OPERATION_FILL, CONTROL_ATS)).toBe(0);
  expect(faults.log).toEqual([{ kind: 'dmaError', request: 'translate', address: IOVA }]);
});

test('page requests are refused', () => {
  const { machine, device } = setUp(ENGINE, true);
  const faults = machine.injectFaults(ENGINE, { seed: 1 });
  const { translate } = faults;
  // Only the page request is to fail: the fault is armed once the translation request has been answered.
  faults.translate = (...request) => {
    const completion = translate.apply(faults, request);
    faults.once('dmaError');
    return completion;
  };
  const flags = CONTROL_ATS | CONTROL_PAGE_REQUESTS;
  expect(command(device, OPERATION_FILL, flags, 0x90_0000n)).toBe(ERROR_PAGE_REQUEST);
  expect(faults.log).toEqual([{ kind: 'dmaError', request: 'page request', address: 0x90_0000n }]);
});

test('one bit of what is moved is wrong', () => {
  const { machine, device, buffer, bar } = setUp(ENGINE);
  const faults = machine.injectFaults(ENGINE, { seed: 3 });
  const ones = (bytes: Uint8Array, expected: (i: number) => number) =>
    bytes.reduce((sum, byte, i) => sum + (byte ^ expected(i)).toString(2).replaceAll('0', '').length, 0);
  const pattern = (i: number) => (i % 2 === 0 ? 0xaa : 0x55);
  faults.once('corruptData');
  expect(command(device, OPERATION_FILL)).toBe(0);
  expect(ones(buffer.bytes.subarray(0, 256), pattern)).toBe(1);
  expect(command(device, OPERATION_FILL)).toBe(0);
  expect(ones(buffer.bytes.subarray(0, 256), pattern)).toBe(0);
  faults.once('corruptData');
  expect(command(device, OPERATION_READ)).toBe(0);
  const read = Uint8Array.from({ length: 256 }, (_, i) => bar.read8(dmaEngine.BUFFER + i));
  expect(ones(read, pattern)).toBe(1);
  expect(ones(buffer.bytes.subarray(0, 256), pattern)).toBe(0);
});

test.each(['msi', 'intx'] as const)('interrupts are lost: %s', async (kind) => {
  const { machine, device, bar } = setUp(EDU);
  const interrupt = device.interrupt(kind);
  const faults = machine.injectFaults(EDU, { seed: 1 });
  faults.once('dropInterrupt');
  const acknowledge = () => bar.write32(edu.INTERRUPT_ACKNOWLEDGE, bar.read32(edu.INTERRUPT_STATUS));
  bar.write32(edu.INTERRUPT_RAISE, 1);
  await expect(interrupt.next({ timeout: 10 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  // The device has raised it all the same.
  expect(bar.read32(edu.INTERRUPT_STATUS)).toBe(1);
  acknowledge();
  bar.write32(edu.INTERRUPT_RAISE, 2);
  expect(await interrupt.next()).toBe(1);
  acknowledge();
  expect(faults.log).toEqual([{ kind: 'dropInterrupt', request: 'interrupt' }]);
});

test('what the device does comes later, and what it began afterwards may overtake it', () => {
  const machine = new Machine({ manual: true });
  const device = machine.device(EDU);
  if (!device) throw new Error('no edu');
  const faults = machine.injectFaults(EDU, { seed: 1, longestDelay: 5000 });
  const seen: string[] = [];
  const schedule = (name: string) => faults.schedule(10, () => seen.push(`${name} ${machine.now > 10}`));
  faults.once('delay');
  schedule('first');
  schedule('second');
  machine.idle();
  expect(seen).toEqual(['second false', 'first true']);
  expect(machine.now).toBeLessThanOrEqual(5010);
});

test('the device is pulled out in the middle of what it does', () => {
  const { machine, device, bar } = setUp(ENGINE);
  machine.injectFaults(ENGINE, { seed: 1 }).once('remove');
  bar.write64(dmaEngine.DESTINATION, IOVA);
  bar.write32(dmaEngine.LENGTH, 8192);
  bar.write32(dmaEngine.CONTROL, CONTROL_START | OPERATION_FILL);
  for (let i = 0; i < 10; i++) bar.read32(dmaEngine.STATUS);
  expect(machine.device(ENGINE)).toBeUndefined();
  expect(bar.read32(dmaEngine.STATUS)).toBe(0xffffffff);
  device.close();
});

test('a seed repeats its faults, and one kind does not move another', () => {
  const strikes = (seed: number, more: object = {}) => {
    const { machine, device } = setUp(ENGINE);
    const faults = machine.injectFaults(ENGINE, { seed, dmaError: 0.3, ...more });
    const codes = Array.from({ length: 40 }, () => command(device, OPERATION_FILL));
    return { codes, kinds: new Set(faults.log.map(({ kind }) => kind)) };
  };
  const { codes } = strikes(5);
  expect(strikes(5).codes).toEqual(codes);
  expect(strikes(6).codes).not.toEqual(codes);
  const both = strikes(5, { corruptData: 0.5 });
  expect(both.codes).toEqual(codes);
  expect([...both.kinds].sort((a, b) => a.localeCompare(b))).toEqual(['corruptData', 'dmaError']);
  const struck = codes.filter((code) => code === ERROR_REFUSED).length;
  expect([struck > 3, struck < 25]).toEqual([true, true]);
});

test('what cannot be injected', () => {
  const machine = new Machine();
  expect(() => machine.injectFaults('0000:00:1f.0', { seed: 1 })).toThrow(
    'there is no device at 0000:00:1f.0',
  );
  expect(() => machine.injectFaults(EDU, { seed: 1, dmaError: 2 })).toThrow('dmaError is a probability');
  expect(() => machine.injectFaults(EDU, { seed: 1.5 })).toThrow('a seed is an integer');
  expect(() => machine.injectFaults(EDU, { seed: 1, longestDelay: -1 })).toThrow(RangeError);
  const faults = machine.injectFaults(EDU, { seed: 1 });
  for (const count of [0, -1, 1.5, NaN]) expect(() => faults.once('delay', count)).toThrow(RangeError);
  expect(() => faults.once('meteor' as FaultKind)).toThrow('faults are dropInterrupt');
});
