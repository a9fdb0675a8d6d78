/** Files of the seam besides their ioctls: /dev/iommu, eventfds, fault queues, memfds, sysfs. */
import {
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLIN,
  POLLOUT,
  PROT_READ,
  PROT_WRITE,
  type DeviceMapping,
} from '../../lib/kernel';
import { errno } from '../../lib/uapi';
import { Calls, code, U64_MAX } from './calls';
import { EDU, errorOf, PAGE } from './support';

const calls = new Calls();
const { kernel } = calls;
const ALL_EVENTS = 0x7fff;
const O_DIRECTORY = 0o200000;
const EFD_SEMAPHORE = 1;
const MEBIBYTE = 2 ** 20;

afterEach(() => calls.close());
afterAll(() => calls.free());

function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

describe('/dev/iommu', () => {
  test('has ioctls and nothing else', () => {
    calls.open();
    const bytes = new Uint8Array(64);
    for (const length of [0, 64]) {
      expect(code(kernel.read(calls.fd, bytes.subarray(0, length)))).toBe('EINVAL');
      expect(code(kernel.write(calls.fd, bytes.subarray(0, length)))).toBe('EINVAL');
      expect(code(kernel.pread(calls.fd, bytes.subarray(0, length), 0))).toBe('EINVAL');
    }
    expect(kernel.mmap(calls.fd, 0, PAGE, PROT_READ)).toBe(-errno.ENXIO);
    expect(kernel.poll(calls.fd, POLLIN | POLLOUT)).toBe(POLLIN | POLLOUT);
    expect(kernel.watch(calls.fd, POLLIN, () => {})).toBe(-errno.EPERM);
    // A number outside the table, and one in it, without an argument.
    expect(code(kernel.ioctl(calls.fd, 0x3b7f))).toBe('ENOTTY');
    expect(code(kernel.ioctl(calls.fd, 0x3b81))).toBe('EFAULT');
    expect(code(kernel.ioctl(calls.fd, 0x3c81))).toBe('EFAULT');
    expect(code(kernel.ioctl(calls.fd, 0x3c81, u64(12n)))).toBe('ENOTTY');
  });

  test('is found by any of its names', () => {
    for (const flags of [O_RDONLY, O_WRONLY, O_RDWR]) {
      calls.fd = calls.file('/dev/iommu', flags);
      expect(calls.ioas()).toBe(1);
    }
    calls.file('//dev/./iommu');
    calls.file('/dev/vfio/devices/../../iommu');
    for (const [path, expected] of [
      ['/dev/iommu/', 'ENOTDIR'],
      ['/dev/iommu/x', 'ENOTDIR'],
      ['/dev/no-such-device', 'ENOENT'],
      ['/dev/vfio/devices', 'EISDIR'],
      ['/dev/vfio/devices/vfio00', 'ENOENT'],
      ['', 'ENOENT'],
    ])
      expect(code(kernel.open(path, O_RDWR))).toBe(expected);
    expect(code(kernel.open('/dev/iommu', O_DIRECTORY))).toBe('ENOTDIR');
  });

  test('misuse throws', () => {
    calls.open();
    const { fd } = calls;
    const one = new Uint8Array(1);
    // By name: the addon's errors are of another realm than the tests'.
    for (const [name, misuse] of [
      ['TypeError', () => kernel.ioctl(fd, 0x3b81, 'x' as unknown as Uint8Array)],
      ['RangeError', () => kernel.ioctl(fd, -1)],
      ['RangeError', () => kernel.ioctl(fd, 0x3b81, 0.5)],
      ['TypeError', () => kernel.ioctl('3' as unknown as number, 0x3b81)],
      ['TypeError', () => kernel.read(fd, [1] as unknown as Uint8Array)],
      ['RangeError', () => kernel.pread(fd, one, -1)],
      ['RangeError', () => kernel.pread(fd, one, 2 ** 53)],
      ['RangeError', () => kernel.poll(fd, 0x8000)],
      ['TypeError', () => kernel.open(1 as unknown as string, 0)],
      ['RangeError', () => kernel.mmap(fd, 0, PAGE, 0)],
      ['RangeError', () => kernel.eventfd(-1, 0)],
      ['RangeError', () => kernel.eventfd(2 ** 32, 0)],
      ['TypeError', () => kernel.addressOf([] as unknown as Uint8Array)],
    ] as const)
      expect((errorOf(misuse) as Error).name).toBe(name);
  });

  test('descriptors that are not', () => {
    for (const fd of [-1, 987]) {
      expect(code(kernel.close(fd))).toBe('EBADF');
      expect(code(kernel.ioctl(fd, 0x3b81))).toBe('EBADF');
      expect(code(kernel.read(fd, new Uint8Array(8)))).toBe('EBADF');
      expect(code(kernel.pwrite(fd, new Uint8Array(8), 0))).toBe('EBADF');
      expect(kernel.mmap(fd, 0, PAGE, PROT_READ)).toBe(-errno.EBADF);
      expect(kernel.watch(fd, POLLIN, () => {})).toBe(-errno.EBADF);
    }
  });

  test('access mode 3 is for ioctls only', () => {
    const fd = calls.file('/dev/iommu', 3);
    expect(code(kernel.ioctl(fd, 0x3b81, new Uint8Array([12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])))).toBe(0);
    expect(code(kernel.read(fd, new Uint8Array(8)))).toBe('EBADF');
    expect(code(kernel.write(fd, new Uint8Array(8)))).toBe('EBADF');
    expect(code(kernel.pread(fd, new Uint8Array(8), 0))).toBe('EBADF');
    expect(kernel.mmap(fd, 0, PAGE, PROT_READ)).toBe(-errno.EACCES);
    expect(kernel.poll(fd, POLLIN | POLLOUT)).toBe(POLLIN | POLLOUT);
  });

  test('an argument can be an address', () => {
    calls.open();
    const { bytes } = calls;
    bytes.set([12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(kernel.ioctl(calls.fd, 0x3b81, Number(calls.base))).toBe(0);
    expect([...bytes.subarray(8, 12)]).toEqual([1, 0, 0, 0]);
  });
});

describe('eventfd', () => {
  const value = (fd: number) => {
    const bytes = new Uint8Array(8);
    const result = kernel.read(fd, bytes);
    return result === 8 ? new DataView(bytes.buffer).getBigUint64(0, true) : code(result);
  };

  test('counts', () => {
    const fd = calls.eventfd(3);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLIN | POLLOUT);
    expect(value(fd)).toBe(3n);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLOUT);
    expect(value(fd)).toBe('EAGAIN');
    expect(kernel.write(fd, u64(0n))).toBe(8);
    expect(value(fd)).toBe('EAGAIN');
    expect(kernel.write(fd, u64(2n))).toBe(8);
    expect(kernel.write(fd, u64(3n))).toBe(8);
    expect(value(fd)).toBe(5n);
  });

  test('is full at 2^64 - 2', () => {
    const fd = calls.eventfd(0);
    expect(code(kernel.write(fd, u64(U64_MAX)))).toBe('EINVAL');
    expect(kernel.write(fd, u64(U64_MAX - 1n))).toBe(8);
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLIN);
    expect(code(kernel.write(fd, u64(1n)))).toBe('EAGAIN');
    expect(kernel.write(fd, u64(0n))).toBe(8);
    expect(value(fd)).toBe(U64_MAX - 1n);
  });

  test('lengths and flags', () => {
    const fd = calls.eventfd(1);
    expect(code(kernel.read(fd, new Uint8Array(7)))).toBe('EINVAL');
    expect(code(kernel.write(fd, new Uint8Array(7)))).toBe('EINVAL');
    expect(code(kernel.write(fd, new Uint8Array(16)))).toBe('EINVAL');
    expect(code(kernel.pread(fd, new Uint8Array(8), 0))).toBe('ESPIPE');
    expect(code(kernel.pwrite(fd, new Uint8Array(8), 0))).toBe('ESPIPE');
    expect(kernel.mmap(fd, 0, PAGE, PROT_READ)).toBe(-errno.ENODEV);
    expect(kernel.read(fd, new Uint8Array(9))).toBe(8);
    expect(code(kernel.eventfd(0, 0x80))).toBe('EINVAL');
    calls.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  });

  test('as a semaphore gives one at a time', () => {
    const fd = calls.eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    expect([value(fd), value(fd), value(fd)]).toEqual([1n, 1n, 'EAGAIN']);
  });
});

describe('a fault queue', () => {
  test('without faults', () => {
    calls.open();
    const { fd } = calls.faultQueue();
    for (const length of [0, 40, 80]) expect(kernel.read(fd, new Uint8Array(length))).toBe(0);
    for (const length of [1, 39, 41]) expect(code(kernel.read(fd, new Uint8Array(length)))).toBe('ESPIPE');
    expect(kernel.write(fd, new Uint8Array(0))).toBe(0);
    for (const length of [7, 9]) expect(code(kernel.write(fd, new Uint8Array(length)))).toBe('ESPIPE');
    for (const length of [8, 24]) expect(code(kernel.write(fd, new Uint8Array(length)))).toBe('EINVAL');
    expect(kernel.poll(fd, ALL_EVENTS)).toBe(POLLOUT);
    expect(code(kernel.pread(fd, new Uint8Array(40), 0))).toBe('ESPIPE');
    expect(kernel.mmap(fd, 0, PAGE, PROT_READ)).toBe(-errno.ENODEV);
    expect(code(kernel.ioctl(fd, 0x5401))).toBe('ENOTTY');
  });
});

describe('memory with a descriptor', () => {
  function allocate(length: number, hugePages = false) {
    const memory = kernel.allocate(length, { memfd: true, hugePages });
    if (typeof memory === 'number') throw new Error(`allocate: ${code(memory)}`);
    return memory;
  }

  test('is a file', () => {
    expect(kernel.allocate(0)).toBe(-errno.EINVAL);
    const memory = allocate(5000);
    const { fd, bytes } = memory;
    expect(memory.length).toBe(2 * PAGE);
    bytes[8190] = 7;
    const two = new Uint8Array(4);
    expect(kernel.pread(fd, two, 8190)).toBe(2);
    expect([...two]).toEqual([7, 0, 0, 0]);
    expect(kernel.pread(fd, two, 8192)).toBe(0);
    expect(kernel.pwrite(fd, new Uint8Array([1, 2]), 5)).toBe(2);
    expect([...bytes.subarray(5, 7)]).toEqual([1, 2]);
    expect(kernel.write(fd, new Uint8Array([9]))).toBe(1);
    expect(kernel.read(fd, two)).toBe(4);
    expect(bytes[0]).toBe(9);
    expect([...two]).toEqual([0, 0, 0, 0]);
    expect(kernel.poll(fd, 0x7fff)).toBe(0x145);
    expect(kernel.watch(fd, POLLIN, () => {})).toBe(-errno.EPERM);
    memory.free();
    memory.free();
    expect(memory.bytes).toHaveLength(0);
    expect(code(kernel.close(fd))).toBe('EBADF');
  });

  test('keeps its size', () => {
    const memory = allocate(PAGE);
    const write = (length: number, offset: number) =>
      code(kernel.pwrite(memory.fd, new Uint8Array(length).fill(1), offset));
    expect(write(1, PAGE)).toBe('EPERM');
    expect(write(2, PAGE - 1)).toBe('EPERM');
    expect(memory.bytes[PAGE - 1]).toBe(0);
    expect(write(1, PAGE - 1)).toBe(1);
    expect(write(0, PAGE)).toBe(0);
    expect(write(0, 5 * PAGE)).toBe(0);
    memory.free();
    // Written in pieces up to the next 2 MiB: those before the end are done.
    const large = allocate(4 * MEBIBYTE);
    expect(code(kernel.pwrite(large.fd, new Uint8Array(100).fill(2), 4 * MEBIBYTE - 50))).toBe(50);
    expect(large.bytes[4 * MEBIBYTE - 1]).toBe(2);
    large.free();
    const uneven = allocate(4 * MEBIBYTE + PAGE);
    expect(code(kernel.pwrite(uneven.fd, new Uint8Array(2 * PAGE), 4 * MEBIBYTE - 50))).toBe(50);
    expect(code(kernel.pwrite(uneven.fd, new Uint8Array(2 * PAGE), 4 * MEBIBYTE))).toBe('EPERM');
    uneven.free();
  });

  test('can be mapped', () => {
    const memory = allocate(3 * PAGE);
    const map = (offset: number, length: number, protection = PROT_READ | PROT_WRITE) => {
      const mapping = kernel.mmap(memory.fd, offset, length, protection);
      return typeof mapping === 'number' ? code(mapping) : mapping;
    };
    expect(map(0, 0)).toBe('EINVAL');
    expect(map(1, PAGE)).toBe('EINVAL');
    expect(map(2 * PAGE, 2 * PAGE)).toBe('EINVAL');
    expect(map(3 * PAGE, 1)).toBe('EINVAL');
    const mapping = map(PAGE, 2 * PAGE) as DeviceMapping;
    memory.bytes.set([1, 2, 3, 4, 5, 6, 7, 8], PAGE + 8);
    expect(mapping.length).toBe(2 * PAGE);
    expect([mapping.load(8, 1), mapping.load(10, 2), mapping.load(12, 4)]).toEqual([1, 0x0403, 0x08070605]);
    expect(mapping.load64(8)).toBe(0x0807060504030201n);
    mapping.store(0, 1, 0xff);
    mapping.store(2, 2, 0x1234);
    mapping.store(4, 4, 0xdeadbeef);
    mapping.store64(16, 5n);
    expect([...memory.bytes.subarray(PAGE, PAGE + 8)]).toEqual([0xff, 0, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde]);
    expect(memory.bytes[PAGE + 16]).toBe(5);
    expect(errorOf(() => mapping.load(1, 2))).toHaveProperty('name', 'RangeError');
    expect(errorOf(() => mapping.load(2 * PAGE, 1))).toHaveProperty('name', 'RangeError');
    const readable = map(0, PAGE, PROT_READ) as DeviceMapping;
    expect(errorOf(() => readable.store(0, 1, 0))).toHaveProperty('name', 'TypeError');
    readable.unmap();
    // The pages are the file's: they outlive the memory that they were.
    memory.free();
    expect(mapping.load(0, 1)).toBe(0xff);
    mapping.unmap();
    mapping.unmap();
    expect(errorOf(() => mapping.load(0, 1))).toHaveProperty('name', 'TypeError');
  });

  test('of huge pages cannot be written as a file', () => {
    const memory = kernel.allocate(1, { memfd: true, hugePages: true });
    // The guest has none.
    if (typeof memory === 'number') return expect(memory).toBe(-errno.ENOMEM);
    expect(code(kernel.pwrite(memory.fd, new Uint8Array(1), 0))).toBe('EINVAL');
    memory.bytes[1] = 3;
    const two = new Uint8Array(2);
    expect(kernel.pread(memory.fd, two, 0)).toBe(2);
    expect([...two]).toEqual([0, 3]);
    expect(kernel.mmap(memory.fd, PAGE, PAGE, PROT_READ)).toBe(-errno.EINVAL);
    memory.free();
  });
});

describe('sysfs', () => {
  const device = `/sys/bus/pci/devices/${EDU}`;
  const vfio = '/sys/bus/pci/drivers/vfio-pci';
  const driver = () => {
    const target = kernel.readlink(`${device}/driver`);
    return typeof target === 'string' ? target.split('/').at(-1) : code(target);
  };

  test('reads', () => {
    expect(kernel.readFile(`${device}/class`)).toBe('0x00ff00\n');
    expect(kernel.readFile(`${device}/subsystem_device`)).toBe('0x1100\n');
    expect(kernel.readFile(`${device}/driver/../../devices/${EDU}/device`)).toBe('0x11e8\n');
    expect(kernel.readFile('/sys/class/vfio-dev/vfio0/device/vendor')).toBe('0x1234\n');
    expect(kernel.readdir(`${device}/iommu_group/devices`)).toEqual([EDU]);
    expect(kernel.readlink(`${device}/subsystem`)).toBe('../../../bus/pci');
    expect(kernel.readlink(`${device}/vendor`)).toBe(-errno.EINVAL);
    expect(kernel.readlink(`${device}/none`)).toBe(-errno.ENOENT);
    expect(kernel.readdir(`${device}/vendor`)).toBe(-errno.ENOTDIR);
    expect(kernel.readdir(`${device}/none`)).toBe(-errno.ENOENT);
    expect(kernel.readFile(device)).toBe(-errno.EISDIR);
    expect(kernel.readFile(`${vfio}/bind`)).toBe(-errno.EACCES);
    const fd = calls.file(`${device}/vendor`, O_RDONLY);
    const bytes = new Uint8Array(16);
    expect(kernel.read(fd, bytes)).toBe(7);
    expect(kernel.read(fd, bytes)).toBe(0);
    expect(kernel.pread(fd, bytes, 2)).toBe(5);
    expect(code(kernel.write(fd, bytes))).toBe('EBADF');
    expect(code(kernel.open(`${device}/vendor`, O_RDWR))).toBe('EACCES');
    expect(code(kernel.read(calls.file(device, O_RDONLY), bytes))).toBe('EISDIR');
  });

  test('writes', () => {
    expect(code(kernel.writeFile(`${device}/vendor`, 'x'))).toBe('EACCES');
    expect(code(kernel.writeFile(`${device}/none`, 'x'))).toBe('ENOENT');
    expect(code(kernel.writeFile(device, 'x'))).toBe('EISDIR');
    expect(code(kernel.writeFile('/dev/iommu', 'x'))).toBe('EINVAL');
    expect(code(kernel.writeFile(`${vfio}/bind`, 'junk'))).toBe('ENODEV');
    expect(code(kernel.writeFile(`${vfio}/bind`, EDU))).toBe('EBUSY');
    expect(code(kernel.writeFile(`${vfio}/unbind`, '0000:00:1e.7'))).toBe('ENODEV');
    expect(code(kernel.writeFile('/sys/bus/pci/drivers_probe', 'junk'))).toBe('ENODEV');
  });

  test('a device changes drivers', () => {
    expect(kernel.writeFile(`${vfio}/unbind`, `${EDU}\n`)).toBe(13);
    expect(driver()).toBe('ENOENT');
    expect(kernel.readdir(`${device}/vfio-dev`)).toBe(-errno.ENOENT);
    expect(code(kernel.writeFile(`${vfio}/unbind`, EDU))).toBe('ENODEV');
    expect(kernel.writeFile(`${vfio}/bind`, EDU)).toBe(12);
    expect(driver()).toBe('vfio-pci');
    kernel.writeFile(`${vfio}/unbind`, EDU);
    expect(kernel.writeFile(`${device}/driver_override`, '\n')).toBe(1);
    expect(kernel.readFile(`${device}/driver_override`)).toBe('(null)\n');
    expect(code(kernel.writeFile(`${vfio}/bind`, EDU))).toBe('ENODEV');
    expect(kernel.writeFile('/sys/bus/pci/drivers_probe', EDU)).toBe(12);
    expect(driver()).toBe('ENOENT');
    kernel.writeFile(`${device}/driver_override`, 'no-such-driver');
    expect(kernel.writeFile('/sys/bus/pci/drivers_probe', EDU)).toBe(12);
    expect(code(kernel.writeFile(`${vfio}/bind`, EDU))).toBe('ENODEV');
    expect(kernel.writeFile(`${device}/driver_override`, 'vfio-pci\n')).toBe(9);
    expect(kernel.writeFile('/sys/bus/pci/drivers_probe', EDU)).toBe(12);
    expect(driver()).toBe('vfio-pci');
    calls.open();
    expect(calls.bind(calls.vfio())).toBe(1);
  });
});
