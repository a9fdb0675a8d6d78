/** VFIO_DEVICE_IOEVENTFD on edu: an eventfd that writes the liveness register, which then shows the complement. */
import * as uapi from '../../lib/uapi';
import { Calls, code } from './calls';

const calls = new Calls();
const { kernel } = calls;
const LIVENESS = 4n;
const BAR_SIZE = 1n << 20n;
const REGION = 1n << 40n;
const CONFIG = uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;
const { VFIO_DEVICE_IOEVENTFD_32: WIDTH_32, VFIO_DEVICE_IOEVENTFD_64: WIDTH_64 } = uapi;
const MOST = 1000;

let vfio: number;
let eventfd: number;

beforeEach(() => {
  calls.open();
  vfio = calls.vfio();
  calls.bind(vfio);
  eventfd = calls.eventfd();
  kernel.pwrite(vfio, new Uint8Array(4), Number(LIVENESS));
});
afterEach(() => calls.close());
afterAll(() => calls.free());

function set(values: Parameters<typeof uapi.vfio_device_ioeventfd.encode>[0]) {
  const write = { flags: WIDTH_32, offset: LIVENESS, fd: eventfd, ...values };
  return calls.call(vfio, uapi.VFIO_DEVICE_IOEVENTFD, write).code;
}

/** What was written to the register last. */
function written(): number {
  const bytes = new Uint8Array(4);
  kernel.pread(vfio, bytes, Number(LIVENESS));
  return ~new DataView(bytes.buffer).getUint32(0, true) >>> 0;
}

function signal(fd = eventfd): void {
  expect(kernel.write(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))).toBe(8);
}

function count(fd = eventfd): number | string {
  const bytes = new Uint8Array(8);
  const result = kernel.read(fd, bytes);
  return result < 0 ? code(result) : bytes[0];
}

test('the order of complaints', () => {
  expect(set({ argsz: 27 })).toBe('EINVAL');
  for (const flags of [0, 3, 16, 16 | WIDTH_32]) expect(set({ flags })).toBe('EINVAL');
  expect(set({ fd: -2 })).toBe('EINVAL');
  for (const region of [1n, 5n, 6n, 7n, 8n, 9n, 0x7f_ffffn])
    expect(set({ offset: region * REGION })).toBe('EINVAL');
  expect(set({ offset: BAR_SIZE - 3n, fd: -1 })).toBe('EINVAL');
  expect(set({ offset: BAR_SIZE - 4n, fd: -1 })).toBe('ENODEV');
  expect(set({ fd: 999 })).toBe('EBADF');
  expect(set({ fd: vfio })).toBe('EINVAL');
  expect(set({ fd: calls.fd })).toBe('EINVAL');
  expect(set({ argsz: 28 })).toBe(0);
});

test('each signal is a write, and is taken', () => {
  expect(set({ data: 0x1_2345_6789n })).toBe(0);
  expect(written()).toBe(0);
  signal();
  expect(written()).toBe(0x2345_6789);
  expect(count()).toBe('EAGAIN');
});

test('one that was pending counts, and stays to be read', () => {
  signal();
  expect(set({ data: 5 })).toBe(0);
  expect(written()).toBe(5);
  expect(count()).toBe(1);
});

test('known by place, width and data; taken away by descriptor -1', () => {
  expect(set({ data: 1 })).toBe(0);
  expect(set({ data: 1 })).toBe('EEXIST');
  expect(set({ data: 1, fd: calls.eventfd() })).toBe('EEXIST');
  expect(set({ data: 1, fd: 999 })).toBe('EEXIST');
  expect(set({ data: 0x1_0000_0001n })).toBe(0);
  expect(set({ data: 1, flags: WIDTH_64, offset: 8n })).toBe(0);
  expect(set({ data: 2, fd: -1 })).toBe('ENODEV');
  expect(set({ data: 1, fd: -1 })).toBe(0);
  expect(set({ data: 1, fd: -1 })).toBe('ENODEV');
  expect(set({ data: 0x1_0000_0001n, fd: -1 })).toBe(0);
  signal();
  expect(written()).toBe(0);
});

test('several writes for one eventfd, the latest first', () => {
  for (const data of [1, 2, 3]) expect(set({ data })).toBe(0);
  signal();
  expect(written()).toBe(1);
  expect(set({ data: 1, fd: -1 })).toBe(0);
  signal();
  expect(written()).toBe(2);
});

test('nothing is written while memory space is off', () => {
  expect(set({ data: 7 })).toBe(0);
  kernel.pwrite(vfio, new Uint8Array(2), CONFIG + 4);
  signal();
  expect(count()).toBe('EAGAIN');
  kernel.pwrite(vfio, new Uint8Array([2, 0]), CONFIG + 4);
  expect(written()).toBe(0);
  signal();
  expect(written()).toBe(7);
});

test('a thousand of them', () => {
  for (let data = 0; data < MOST; data++) expect(set({ data })).toBe(0);
  expect(set({ data: MOST })).toBe('ENOSPC');
  expect(set({ data: 0 })).toBe('EEXIST');
  expect(set({ data: 0, fd: -1 })).toBe(0);
  expect(set({ data: MOST })).toBe(0);
});

test('closing the device takes them all', () => {
  expect(set({ data: 9 })).toBe(0);
  calls.shut(vfio);
  signal();
  expect(count()).toBe(1);
  vfio = calls.vfio();
  calls.bind(vfio);
  expect(written()).toBe(0);
});
