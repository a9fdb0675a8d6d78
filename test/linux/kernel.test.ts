import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  EFD_NONBLOCK,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLIN,
  POLLOUT,
  POLLRDNORM,
} from '../../lib/kernel';
import { LinuxKernel } from '../../lib/linux/kernel';
import { errno } from '../../lib/uapi/errno';
import { describeLinux } from './has-addon';

const O_CREAT = 0o100;
const FIONREAD = 0x541b;
const NO_FD = 0x7fffffff;

describeLinux('LinuxKernel', () => {
  let kernel: LinuxKernel;
  let folder: string;
  const opened: number[] = [];

  beforeAll(() => {
    kernel = new LinuxKernel();
    folder = mkdtempSync(join(tmpdir(), 'iommufd-test-'));
  });
  afterEach(() => {
    for (const fd of opened.splice(0)) kernel.close(fd);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** A descriptor that the test's end closes. */
  function keep(fd: number): number {
    expect(fd).toBeGreaterThanOrEqual(0);
    opened.push(fd);
    return fd;
  }

  function file(name: string, contents: string | Uint8Array): string {
    const path = join(folder, name);
    writeFileSync(path, contents);
    return path;
  }

  test('says what it is', () => {
    expect(kernel.backend).toBe('linux');
    expect(kernel.version).toBe(`Linux ${release()}`);
    expect(kernel.pageSize).toBeGreaterThanOrEqual(4096);
    expect(LinuxKernel.load()).toBeInstanceOf(LinuxKernel);
  });

  describe('open and close', () => {
    test('open with O_CLOEXEC, whatever the flags', () => {
      const fd = keep(kernel.open(file('a', ''), O_RDWR));
      expect(kernel.readFile(`/proc/self/fdinfo/${fd}`)).toMatch(/flags:\t0?2[0-7]*\n/);
    });

    test('errors', () => {
      expect(kernel.open(join(folder, 'absent'), O_RDONLY)).toBe(-errno.ENOENT);
      expect(kernel.open(join(file('b', ''), 'c'), O_RDONLY)).toBe(-errno.ENOTDIR);
      expect(kernel.open(folder, O_WRONLY)).toBe(-errno.EISDIR);
      expect(kernel.open('', O_RDONLY)).toBe(-errno.ENOENT);
      expect(kernel.open(`/${'x'.repeat(5000)}`, O_RDONLY)).toBe(-errno.ENAMETOOLONG);
      expect(kernel.open(`/${'x/'.repeat(1_000_000)}`, O_RDONLY)).toBe(-errno.ENAMETOOLONG);
    });

    test('create a file, under a name beyond ASCII', () => {
      const path = join(folder, 'Gerät ☂');
      keep(kernel.open(path, O_RDWR | O_CREAT));
      expect(kernel.readFile(path)).toBe('');
    });

    test('close once', () => {
      const fd = kernel.open(file('d', ''), O_RDONLY);
      expect(kernel.close(fd)).toBe(0);
      expect(kernel.close(fd)).toBe(-errno.EBADF);
      expect(kernel.close(-1)).toBe(-errno.EBADF);
    });
  });

  describe('read and write', () => {
    test('in sequence and at offsets', () => {
      const fd = keep(kernel.open(file('e', 'hello'), O_RDWR));
      const bytes = new Uint8Array(8);
      expect(kernel.read(fd, bytes)).toBe(5);
      expect(Buffer.from(bytes).toString('latin1')).toBe('hello\0\0\0');
      expect(kernel.read(fd, bytes)).toBe(0);
      expect(kernel.write(fd, Buffer.from(' world'))).toBe(6);
      expect(kernel.pread(fd, bytes.subarray(2, 6), 6)).toBe(4);
      expect(Buffer.from(bytes).toString('latin1')).toBe('heworl\0\0');
      expect(kernel.pwrite(fd, Buffer.from('W'), 6)).toBe(1);
      expect(kernel.readFile(join(folder, 'e'))).toBe('hello World');
      expect(kernel.read(fd, new Uint8Array(0))).toBe(0);
    });

    test('offsets above 4 GiB', () => {
      const fd = keep(kernel.open(file('f', ''), O_RDWR));
      const offset = 2 ** 40 + 4096;
      expect(kernel.pwrite(fd, Buffer.from('far'), offset)).toBe(3);
      expect(fstatSync(fd).size).toBe(offset + 3);
      const bytes = new Uint8Array(3);
      expect(kernel.pread(fd, bytes, offset)).toBe(3);
      expect(Buffer.from(bytes).toString()).toBe('far');
    });

    test('through views of every kind of memory', () => {
      const fd = keep(kernel.open(file('g', 'abcdefgh'), O_RDONLY));
      const shared = new Uint8Array(new SharedArrayBuffer(8), 2, 4);
      expect(kernel.pread(fd, shared, 0)).toBe(4);
      expect([...shared]).toEqual([...Buffer.from('abcd')]);
    });

    test('errors', () => {
      const fd = keep(kernel.open(file('h', 'x'), O_RDONLY));
      const bytes = new Uint8Array(4);
      expect(kernel.write(fd, bytes)).toBe(-errno.EBADF);
      expect(kernel.read(NO_FD, bytes)).toBe(-errno.EBADF);
      expect(kernel.read(keep(kernel.open(folder, O_RDONLY)), bytes)).toBe(-errno.EISDIR);
      expect(kernel.pread(keep(kernel.eventfd(0, 0)), bytes, 0)).toBe(-errno.ESPIPE);
    });
  });

  describe('ioctl', () => {
    test('with a struct, an integer and nothing', () => {
      const fd = keep(kernel.open(file('i', 'twelve bytes'), O_RDONLY));
      const count = new Uint8Array(4);
      expect(kernel.ioctl(fd, FIONREAD, count)).toBe(0);
      expect(count[0]).toBe(12);
      expect(kernel.ioctl(fd, FIONREAD, 1)).toBe(-errno.EFAULT);
      expect(kernel.ioctl(fd, FIONREAD, -4096)).toBe(-errno.EFAULT);
      expect(kernel.ioctl(fd, FIONREAD)).toBe(-errno.EFAULT);
      expect(kernel.ioctl(fd, 0xffffffff)).toBe(-errno.ENOTTY);
      expect(kernel.ioctl(NO_FD, FIONREAD, count)).toBe(-errno.EBADF);
    });

    test('refuses a struct that says it is longer than it is', () => {
      const IOMMU_DESTROY = 0x3b80;
      const struct = new Uint8Array(8);
      struct[0] = 8;
      expect(kernel.ioctl(NO_FD, IOMMU_DESTROY, struct)).toBe(-errno.EBADF);
      struct[0] = 9;
      const call = (argument: Uint8Array) => () => kernel.ioctl(NO_FD, IOMMU_DESTROY, argument);
      expect(call(struct)).toThrow('argument is 8 bytes long, but request 0x3b80 takes 9');
      expect(call(struct.fill(0xff))).toThrow('takes 4294967295');
      expect(call(new Uint8Array(3))).toThrow('takes 4');
      expect(call(new Uint8Array(0))).toThrow('takes 4');
    });

    test('refuses a struct shorter than the size in the request', () => {
      const FS_IOC_GETFLAGS = 0x80086601;
      expect(() => kernel.ioctl(NO_FD, FS_IOC_GETFLAGS, new Uint8Array(7))).toThrow('takes 8');
      expect(kernel.ioctl(NO_FD, FS_IOC_GETFLAGS, new Uint8Array(8))).toBe(-errno.EBADF);
    });

    test('lets the VFIO group requests, whose arguments have no size, pass', () => {
      expect(kernel.ioctl(NO_FD, 0x3b68, new Uint8Array([200, 0, 0, 0]))).toBe(-errno.EBADF);
      expect(kernel.ioctl(NO_FD, 0x3b6a, Buffer.from('0000:00:04.0\0'))).toBe(-errno.EBADF);
    });
  });

  describe('files', () => {
    test('readdir sorts', () => {
      mkdirSync(join(folder, 'names'));
      for (const name of ['b', 'a', '0000:00:04.0', 'B']) file(`names/${name}`, '');
      expect(kernel.readdir(join(folder, 'names'))).toEqual(['0000:00:04.0', 'B', 'a', 'b']);
      expect(kernel.readdir(join(folder, 'absent'))).toBe(-errno.ENOENT);
      expect(kernel.readdir(file('plain', ''))).toBe(-errno.ENOTDIR);
    });

    test('readFile, of procfs too', () => {
      expect(kernel.readFile('/proc/self/comm')).toMatch(/^\S.*\n$/);
      expect(kernel.readFile(file('j', 'grüß'))).toBe('grüß');
      expect(kernel.readFile(folder)).toBe(-errno.EISDIR);
      expect(kernel.readFile(join(folder, 'absent'))).toBe(-errno.ENOENT);
    });

    test('writeFile writes an existing file', () => {
      const path = file('k', 'old text');
      expect(kernel.writeFile(path, 'new')).toBe(3);
      expect(kernel.readFile(path)).toBe('new text');
      expect(kernel.writeFile(join(folder, 'absent'), 'x')).toBe(-errno.ENOENT);
      expect(kernel.writeFile('/proc/self/oom_score_adj', 'words')).toBe(-errno.EINVAL);
    });

    test('readlink', () => {
      const path = join(folder, 'link');
      symlinkSync('../../relative/target', path);
      expect(kernel.readlink(path)).toBe('../../relative/target');
      expect(kernel.readlink(folder)).toBe(-errno.EINVAL);
      expect(kernel.readlink(join(folder, 'absent'))).toBe(-errno.ENOENT);
    });

    test('a path with a null character is misuse', () => {
      for (const call of [kernel.readdir, kernel.readFile, kernel.readlink]) {
        expect(() => call('/tmp/\0')).toThrow(/null bytes/);
      }
      expect(() => kernel.open('/tmp/\0', O_RDONLY)).toThrow(/null characters/);
      expect(() => kernel.writeFile('/tmp/\0', '')).toThrow(/null bytes/);
    });
  });

  describe('eventfd and poll', () => {
    test('an eventfd counts', () => {
      const fd = keep(kernel.eventfd(7, EFD_NONBLOCK));
      const count = new Uint8Array(8);
      expect(kernel.poll(fd, POLLIN | POLLOUT)).toBe(POLLIN | POLLOUT);
      expect(kernel.poll(fd, POLLIN)).toBe(POLLIN);
      expect(kernel.read(fd, count)).toBe(8);
      expect(count[0]).toBe(7);
      expect(kernel.read(fd, count)).toBe(-errno.EAGAIN);
      expect(kernel.poll(fd, POLLIN)).toBe(0);
      expect(kernel.write(fd, new Uint8Array(7))).toBe(-errno.EINVAL);
    });

    test('errors', () => {
      expect(kernel.eventfd(0, 0x40000000)).toBe(-errno.EINVAL);
      expect(kernel.poll(NO_FD, POLLIN)).toBe(-errno.EBADF);
      expect(kernel.poll(-1, POLLIN)).toBe(-errno.EBADF);
      expect(kernel.poll(keep(kernel.open(file('l', ''), O_RDONLY)), POLLIN | POLLRDNORM)).toBe(
        POLLIN | POLLRDNORM,
      );
    });

    test('a descriptor that Node opened is as good', () => {
      const fd = openSync(file('m', 'x'), 'r');
      expect(kernel.read(fd, new Uint8Array(2))).toBe(1);
      closeSync(fd);
    });

    test('O_NONBLOCK has the value the seam says', () => {
      const fd = keep(kernel.open(file('n', ''), O_RDONLY | O_NONBLOCK));
      expect(kernel.readFile(`/proc/self/fdinfo/${fd}`)).toMatch(/flags:\t0?2[0-7]*4000\n/);
    });
  });
});
