/** VFIO_DEVICE_SET_IRQS on edu: INTx and MSI, and what must not be combined. */
import * as uapi from '../../lib/uapi';
import { Calls, code } from './calls';
import { until } from './support';

const calls = new Calls();
const { kernel } = calls;
const INTX = uapi.VFIO_PCI_INTX_IRQ_INDEX;
const MSI = uapi.VFIO_PCI_MSI_IRQ_INDEX;
const REQUEST = uapi.VFIO_PCI_REQ_IRQ_INDEX;
const NONE = uapi.VFIO_IRQ_SET_DATA_NONE;
const BOOL = uapi.VFIO_IRQ_SET_DATA_BOOL;
const EVENTFD = uapi.VFIO_IRQ_SET_DATA_EVENTFD;
const MASK = uapi.VFIO_IRQ_SET_ACTION_MASK;
const UNMASK = uapi.VFIO_IRQ_SET_ACTION_UNMASK;
const TRIGGER = uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
const COMMAND = 7 * 2 ** 40 + 4;
const INTERRUPT_RAISE = 0x60;
const INTERRUPT_ACKNOWLEDGE = 0x64;

let vfio: number;
let event: number;
let other: number;

beforeEach(() => {
  calls.open();
  vfio = calls.vfio();
  calls.bind(vfio);
  event = calls.eventfd();
  other = calls.eventfd();
});
afterEach(() => calls.close());
afterAll(() => calls.free());

interface Set {
  start?: number;
  count?: number;
  argsz?: number;
  data?: number[];
}

/** `data` are descriptors, or bytes for BOOL. */
function set(index: number, flags: number, { start = 0, count, argsz, data = [] }: Set = {}) {
  const width = flags & EVENTFD ? 4 : 1;
  const bytes = new Uint8Array(Math.max(20 + width * data.length, argsz ?? 0));
  const header = { argsz: argsz ?? bytes.length, flags, index, start, count: count ?? (data.length || 1) };
  bytes.set(uapi.vfio_irq_set.encode(header));
  const view = new DataView(bytes.buffer);
  data.forEach((value, i) =>
    width === 4 ? view.setInt32(20 + 4 * i, value, true) : view.setUint8(20 + i, value),
  );
  return code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_SET_IRQS.request, bytes));
}

/** Takes what the eventfd has counted. */
function count(fd: number): number {
  const bytes = new Uint8Array(8);
  return kernel.read(fd, bytes) < 0 ? 0 : Number(new DataView(bytes.buffer).getBigUint64(0, true));
}

function register(offset: number, value: number): void {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  expect(kernel.pwrite(vfio, bytes, offset)).toBe(4);
}

const off = (index: number) => set(index, NONE | TRIGGER, { count: 0 });
const on = (index: number, fd: number) => set(index, EVENTFD | TRIGGER, { data: [fd] });
const fire = (index: number) => set(index, NONE | TRIGGER);

describe('SET_IRQS', () => {
  test('arguments', () => {
    expect(set(MSI, NONE | TRIGGER, { argsz: 19 })).toBe('EINVAL');
    expect(set(MSI, EVENTFD | TRIGGER, { argsz: 20 })).toBe('EINVAL');
    expect(set(5, NONE | TRIGGER)).toBe('EINVAL');
    expect(set(MSI, 64 | NONE | TRIGGER)).toBe('EINVAL');
    expect(set(MSI, NONE | BOOL | TRIGGER)).toBe('EINVAL');
    expect(set(MSI, TRIGGER)).toBe('EINVAL');
    expect(set(MSI, NONE | TRIGGER, { start: 1 })).toBe('EINVAL');
    expect(set(MSI, NONE | TRIGGER, { start: 1, count: 0 })).toBe('EINVAL');
    expect(set(MSI, NONE | TRIGGER, { start: 2 ** 32 - 1 })).toBe('EINVAL');
    expect(set(MSI, NONE | MASK)).toBe('ENOTTY');
    expect(set(MSI, NONE)).toBe('ENOTTY');
    expect(set(INTX, NONE)).toBe('ENOTTY');
    expect(set(uapi.VFIO_PCI_MSIX_IRQ_INDEX, NONE | TRIGGER)).toBe('EINVAL');
    expect(set(uapi.VFIO_PCI_ERR_IRQ_INDEX, NONE | MASK)).toBe('ENOTTY');
  });

  test('MSI', () => {
    expect(fire(MSI)).toBe('EINVAL');
    expect(off(MSI)).toBe('EINVAL');
    expect(on(MSI, 999)).toBe('EBADF');
    expect(on(MSI, calls.fd)).toBe('EINVAL');
    expect(on(MSI, event)).toBe(0);
    expect(fire(MSI)).toBe(0);
    expect(set(MSI, BOOL | TRIGGER, { data: [1] })).toBe(0);
    expect(set(MSI, BOOL | TRIGGER, { data: [0] })).toBe(0);
    expect(count(event)).toBe(2);
    expect(on(INTX, event)).toBe('EINVAL');
    expect(on(MSI, other)).toBe(0);
    expect(fire(MSI)).toBe(0);
    expect([count(event), count(other)]).toEqual([0, 1]);
    expect(set(MSI, EVENTFD | TRIGGER, { count: 0 })).toBe(0);
    expect(on(MSI, -2)).toBe(0);
    expect(fire(MSI)).toBe(0);
    expect(count(other)).toBe(0);
    expect(off(MSI)).toBe(0);
    expect(off(MSI)).toBe('EINVAL');
  });

  test('a failure takes the vector away', () => {
    on(MSI, event);
    expect(on(MSI, 999)).toBe('EBADF');
    expect(fire(MSI)).toBe(0);
    expect(count(event)).toBe(0);
    expect(on(MSI, event)).toBe(0);
    expect(fire(MSI)).toBe(0);
    expect(count(event)).toBe(1);
  });

  test('INTx', () => {
    expect(set(INTX, NONE | MASK)).toBe('EINVAL');
    expect(fire(INTX)).toBe('EINVAL');
    expect(on(INTX, 999)).toBe('EBADF');
    expect(on(INTX, -1)).toBe(0);
    expect(fire(INTX)).toBe(0);
    expect(on(INTX, event)).toBe(0);
    expect(fire(INTX)).toBe(0);
    expect(set(INTX, BOOL | TRIGGER, { data: [1] })).toBe(0);
    expect(count(event)).toBe(2);
    expect(on(MSI, event)).toBe('EINVAL');
    expect(set(INTX, EVENTFD | TRIGGER, { count: 0 })).toBe('EINVAL');
    expect(set(INTX, EVENTFD | MASK, { data: [other] })).toBe('ENOTTY');
    expect(set(INTX, NONE | MASK, { count: 0 })).toBe('EINVAL');
    expect(off(INTX)).toBe(0);
    expect(on(MSI, event)).toBe(0);
  });

  test('a request notifier', () => {
    expect(fire(REQUEST)).toBe('EINVAL');
    expect(on(REQUEST, event)).toBe(0);
    expect(fire(REQUEST)).toBe(0);
    expect(count(event)).toBe(1);
    expect(set(REQUEST, EVENTFD | TRIGGER, { count: 0 })).toBe('EINVAL');
    expect(on(REQUEST, -2)).toBe('EINVAL');
    expect(on(REQUEST, 999)).toBe('EBADF');
    expect(on(REQUEST, other)).toBe(0);
    expect(fire(REQUEST)).toBe(0);
    expect([count(event), count(other)]).toEqual([0, 1]);
    expect(on(REQUEST, -1)).toBe(0);
    expect(set(REQUEST, BOOL | TRIGGER, { data: [1] })).toBe(0);
    expect(fire(REQUEST)).toBe('EINVAL');
  });
});

describe('INTx from the device', () => {
  let interrupts: number;
  const counted = async (more: number) => {
    await until(() => (interrupts += count(event)) >= more);
    expect(interrupts).toBe(more);
    interrupts = 0;
  };

  beforeEach(() => {
    interrupts = 0;
    expect(on(INTX, event)).toBe(0);
    expect(kernel.pwrite(vfio, new Uint8Array([6, 0]), COMMAND)).toBe(2);
  });
  afterEach(() => register(INTERRUPT_ACKNOWLEDGE, 0xffff_ffff));

  test('comes once, until it is unmasked, and again if it is still up', async () => {
    register(INTERRUPT_RAISE, 1);
    await counted(1);
    expect(set(INTX, NONE | UNMASK)).toBe(0);
    await counted(1);
    register(INTERRUPT_ACKNOWLEDGE, 1);
    expect(set(INTX, NONE | UNMASK)).toBe(0);
    expect(count(event)).toBe(0);
    register(INTERRUPT_RAISE, 1);
    await counted(1);
  });

  test('waits while masked', async () => {
    expect(set(INTX, NONE | MASK)).toBe(0);
    register(INTERRUPT_RAISE, 1);
    expect(count(event)).toBe(0);
    expect(set(INTX, BOOL | UNMASK, { data: [0] })).toBe(0);
    expect(count(event)).toBe(0);
    expect(set(INTX, BOOL | UNMASK, { data: [1] })).toBe(0);
    await counted(1);
  });

  test('Interrupt Disable masks it', async () => {
    expect(kernel.pwrite(vfio, new Uint8Array([6, 4]), COMMAND)).toBe(2);
    register(INTERRUPT_RAISE, 1);
    expect(set(INTX, NONE | UNMASK)).toBe(0);
    expect(fire(INTX)).toBe(0);
    expect(count(event)).toBe(0);
    expect(kernel.pwrite(vfio, new Uint8Array([6, 0]), COMMAND)).toBe(2);
    await counted(1);
  });

  test('an eventfd can unmask it', async () => {
    const unmask = calls.eventfd();
    expect(set(INTX, EVENTFD | UNMASK, { data: [999] })).toBe('EBADF');
    expect(set(INTX, EVENTFD | UNMASK, { data: [unmask] })).toBe(0);
    expect(set(INTX, EVENTFD | UNMASK, { data: [other] })).toBe('EBUSY');
    register(INTERRUPT_RAISE, 1);
    await counted(1);
    const one = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);
    expect(kernel.write(unmask, one)).toBe(8);
    await counted(1);
    // The kernel has read the eventfd.
    await until(() => count(unmask) === 0);
    expect(set(INTX, EVENTFD | UNMASK, { data: [-1] })).toBe(0);
    expect(kernel.write(unmask, one)).toBe(8);
    expect(count(unmask)).toBe(1);
    expect(count(event)).toBe(0);
  });
});
