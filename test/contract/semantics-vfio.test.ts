/** VFIO's ioctls and regions on edu, byte by byte. */
import { O_RDONLY, PROT_READ, PROT_WRITE } from '../../lib/kernel';
import * as uapi from '../../lib/uapi';
import { errno } from '../../lib/uapi';
import { Calls, code, UNMAPPED } from './calls';
import { EDU, PAGE } from './support';

const calls = new Calls();
const { kernel } = calls;
/** Offset of a region in the device file. */
const at = (index: number) => index * 2 ** 40;
const CONFIG = at(uapi.VFIO_PCI_CONFIG_REGION_INDEX);
const COMMAND = 4;
const MEMORY = 2;
const BUS_MASTER = 4;

let vfio: number;

beforeEach(() => {
  calls.open();
  vfio = calls.vfio();
});
afterEach(() => calls.close());
afterAll(() => calls.free());

function read(offset: number, length: number): number[] | string | number {
  const bytes = new Uint8Array(length);
  const result = kernel.pread(vfio, bytes, offset);
  return result < 0 ? code(result) : [...bytes.subarray(0, result)];
}

function write(offset: number, ...bytes: number[]): string | number {
  return code(kernel.pwrite(vfio, new Uint8Array(bytes), offset));
}

function sized(row: uapi.Ioctl, argsz: number, values: object = {}): string | number {
  const bytes = new Uint8Array(Math.max(argsz, row.struct.size));
  bytes.set(row.struct.encode({ ...values, argsz } as never));
  return code(kernel.ioctl(vfio, row.request, bytes));
}

/** Those that begin with argsz. */
const rows = uapi.vfioIoctls.filter(({ struct }) => 'argsz' in struct.fields);
/** Those of devices with a driver of their own. */
const unknown: readonly uapi.Ioctl[] = [
  uapi.VFIO_DEVICE_QUERY_GFX_PLANE,
  uapi.VFIO_DEVICE_GET_GFX_DMABUF,
  uapi.VFIO_MIG_GET_PRECOPY_INFO,
] as unknown as readonly uapi.Ioctl[];

describe('before bind', () => {
  test('everything else is EINVAL', () => {
    for (const row of rows) {
      if (row.name === 'VFIO_DEVICE_BIND_IOMMUFD') continue;
      expect(sized(row, row.struct.size)).toBe('EINVAL');
    }
    expect(code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_RESET.request))).toBe('EINVAL');
    expect(code(kernel.ioctl(vfio, 0x3b9f, new Uint8Array(8)))).toBe('EINVAL');
    expect(read(CONFIG, 4)).toBe('EINVAL');
    expect(read(CONFIG, 0)).toBe('EINVAL');
    expect(write(CONFIG, 0)).toBe('EINVAL');
    expect(kernel.mmap(vfio, 0, PAGE, PROT_READ)).toBe(-errno.EINVAL);
    expect(code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD.request, 0))).toBe('EFAULT');
  });
});

describe('BIND_IOMMUFD', () => {
  const bind = (values: Parameters<typeof uapi.vfio_device_bind_iommufd.encode>[0], fd = vfio) =>
    calls.call(fd, uapi.VFIO_DEVICE_BIND_IOMMUFD, values).code;

  test('the order of complaints', () => {
    const token = uapi.VFIO_DEVICE_BIND_FLAG_TOKEN;
    expect(bind({ iommufd: calls.fd, argsz: 15 })).toBe('EINVAL');
    expect(bind({ iommufd: -1 })).toBe('EINVAL');
    expect(bind({ iommufd: 999, flags: 2 })).toBe('EINVAL');
    expect(bind({ iommufd: 999, flags: token, token_uuid_ptr: UNMAPPED })).toBe('EFAULT');
    expect(bind({ iommufd: 999, flags: token, token_uuid_ptr: calls.base })).toBe('EINVAL');
    expect(bind({ iommufd: 999, token_uuid_ptr: UNMAPPED })).toBe('EBADF');
    expect(bind({ iommufd: calls.eventfd() })).toBe('EBADFD');
    expect(bind({ iommufd: vfio })).toBe('EBADFD');
    expect(bind({ iommufd: 1 })).toBe('EBADFD');
    expect(bind({ iommufd: calls.fd, argsz: 16 })).toBe(0);
    expect(bind({ iommufd: calls.fd })).toBe('EINVAL');
    expect(bind({ iommufd: 999 })).toBe('EINVAL');
  });

  test('one file at a time has the device', () => {
    calls.bind(vfio);
    const second = calls.vfio();
    expect(bind({ iommufd: calls.fd }, second)).toBe('EINVAL');
    expect(bind({ iommufd: calls.file('/dev/iommu') }, second)).toBe('EINVAL');
    expect(bind({ iommufd: 999 }, second)).toBe('EBADF');
    calls.shut(second);
    expect(calls.call(vfio, uapi.VFIO_DEVICE_GET_INFO, {}).code).toBe(0);
    const third = calls.vfio();
    calls.shut(vfio);
    expect(bind({ iommufd: calls.fd }, third)).toBe(0);
  });
});

describe('information', () => {
  beforeEach(() => calls.bind(vfio));

  test('sizes and flags', () => {
    for (const row of rows) {
      if (row.name === 'VFIO_DEVICE_BIND_IOMMUFD' || unknown.includes(row)) continue;
      for (const argsz of [0, 4, row.minimumSize - 1]) expect(sized(row, argsz)).toBe('EINVAL');
    }
    for (const row of [uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT]) {
      const each = row as unknown as uapi.Ioctl;
      for (const flags of [2, 3, 2 ** 31]) expect(sized(each, row.struct.size, { flags })).toBe('EINVAL');
      // With its flag the PASID must be there.
      expect(sized(each, row.minimumSize, { flags: 1 })).toBe('EINVAL');
    }
  });

  test('what needs a driver of the device is ENOTTY, whatever its argument', () => {
    for (const { request } of unknown)
      for (const argument of [0, new Uint8Array(64)])
        expect(code(kernel.ioctl(vfio, request, argument))).toBe('ENOTTY');
  });

  test('regions', () => {
    const region = (index: number) => calls.call(vfio, uapi.VFIO_DEVICE_GET_REGION_INFO, { index });
    expect(region(0)).toMatchObject({ code: 0, out: { size: 1n << 20n, offset: 0n, flags: 7 } });
    expect(region(3)).toMatchObject({ code: 0, out: { size: 0n, offset: 3n << 40n, flags: 0 } });
    expect(region(6)).toMatchObject({ code: 0, out: { size: 0n, flags: 0 } });
    expect(region(7)).toMatchObject({ code: 0, out: { size: 256n, offset: 7n << 40n, flags: 3 } });
    for (const index of [8, 9, 2 ** 32 - 1]) expect(region(index).code).toBe('EINVAL');
  });

  test('interrupts', () => {
    const irq = (index: number) => calls.call(vfio, uapi.VFIO_DEVICE_GET_IRQ_INFO, { index });
    const flags = [7, 9, 9, 9, 9];
    const counts = [1, 1, 0, 1, 1];
    for (let index = 0; index < 5; index++)
      expect(irq(index)).toMatchObject({ code: 0, out: { flags: flags[index], count: counts[index] } });
    expect(irq(5).code).toBe('EINVAL');
  });
});

describe('regions', () => {
  beforeEach(() => calls.bind(vfio));

  test('offsets and lengths', () => {
    expect(read(CONFIG + 252, 4)).toHaveLength(4);
    expect(read(CONFIG + 252, 5)).toBe('EFAULT');
    expect(read(CONFIG + 256, 1)).toBe('EFAULT');
    expect(read(CONFIG + 256, 0)).toEqual([]);
    expect(read(0xf_fffc, 8)).toHaveLength(4);
    expect(read(0x10_0000, 1)).toBe('EINVAL');
    expect(read(0x10_0000, 0)).toEqual([]);
    for (const index of [1, 5, 6, 8, 9, 11]) {
      expect(read(at(index), 4)).toBe('EINVAL');
      expect(write(at(index), 0, 0, 0, 0)).toBe('EINVAL');
    }
  });

  test('mmap', () => {
    const map = (offset: number, length: number, protection = PROT_READ | PROT_WRITE) => {
      const mapping = kernel.mmap(vfio, offset, length, protection);
      if (typeof mapping === 'number') return code(mapping);
      mapping.unmap();
      return mapping.length;
    };
    expect(map(0, PAGE)).toBe(PAGE);
    expect(map(0, 100)).toBe(100);
    expect(map(0, 1 << 20)).toBe(1 << 20);
    expect(map(PAGE, 1 << 20)).toBe('EINVAL');
    expect(map(1 << 20, PAGE)).toBe('EINVAL');
    for (const index of [1, 6, 7, 8, 9]) expect(map(at(index), PAGE)).toBe('EINVAL');
    expect(map(100, PAGE)).toBe('EINVAL');
    expect(map(0, 0)).toBe('EINVAL');
  });

  test('read and write go on from where they were', () => {
    const next = (length: number) => {
      const bytes = new Uint8Array(length);
      const result = kernel.read(vfio, bytes);
      return result < 0 ? code(result) : [...bytes.subarray(0, result)];
    };
    expect(next(0)).toEqual([]);
    expect(next(4)).toEqual([0xed, 0, 0, 1]);
    expect(code(kernel.write(vfio, new Uint8Array([1, 2, 3, 4])))).toBe(4);
    expect(read(4, 4)).toEqual([0xfe, 0xfd, 0xfc, 0xfb]);
    write(CONFIG + COMMAND, 0, 0);
    expect(next(4)).toBe('EIO');
    write(CONFIG + COMMAND, MEMORY, 0);
  });

  test('a descriptor opened for reading only', () => {
    calls.shut(vfio);
    const names = kernel.readdir(`/sys/bus/pci/devices/${EDU}/vfio-dev`) as string[];
    vfio = calls.file(`/dev/vfio/devices/${names[0]}`, O_RDONLY);
    calls.bind(vfio);
    expect(read(0, 4)).toEqual([0xed, 0, 0, 1]);
    expect(write(4, 1, 2, 3, 4)).toBe('EBADF');
    expect(kernel.mmap(vfio, 0, PAGE, PROT_READ)).toBe(-errno.EINVAL);
    expect(kernel.mmap(vfio, 0, PAGE, PROT_READ | PROT_WRITE)).toBe(-errno.EACCES);
  });
});

describe('configuration space', () => {
  beforeEach(() => calls.bind(vfio));

  test('identity is read-only', () => {
    const before = read(CONFIG, 4);
    expect(before).toEqual([0x34, 0x12, 0xe8, 0x11]);
    expect(write(CONFIG, 1, 2, 3, 4)).toBe(4);
    expect(read(CONFIG, 4)).toEqual(before);
  });

  test('BARs tell their size and are not where they say', () => {
    const bar = CONFIG + 0x10;
    const before = read(bar, 4) as number[];
    expect(write(bar, 0xff, 0xff, 0xff, 0xff)).toBe(4);
    expect(read(bar, 4)).toEqual([0, 0, 0xf0, 0xff]);
    expect(write(bar + 3, 0x12)).toBe(1);
    expect(read(bar, 4)).toEqual([0, 0, 0xf0, 0x12]);
    expect(read(0, 4)).toEqual([0xed, 0, 0, 1]);
    for (const offset of [0x14, 0x24, 0x30]) {
      write(CONFIG + offset, 0xff, 0xff, 0xff, 0xff);
      expect(read(CONFIG + offset, 4)).toEqual([0, 0, 0, 0]);
    }
    write(bar, ...before);
    expect(read(bar, 4)).toEqual(before);
  });

  test('without memory space, registers are EIO', () => {
    write(CONFIG + COMMAND, 0, 0);
    expect(read(0, 4)).toBe('EIO');
    expect(write(4, 1, 2, 3, 4)).toBe('EIO');
    write(CONFIG + COMMAND, MEMORY, 0);
    expect(read(0, 4)).toEqual([0xed, 0, 0, 1]);
  });

  test('the command register, by bytes', () => {
    write(CONFIG + COMMAND, MEMORY | BUS_MASTER, 0);
    expect(read(CONFIG + COMMAND, 2)).toEqual([6, 0]);
    write(CONFIG + COMMAND + 1, 5);
    expect(read(CONFIG + COMMAND, 2)).toEqual([6, 5]);
    write(CONFIG + COMMAND, MEMORY);
    expect(read(CONFIG + COMMAND, 2)).toEqual([2, 5]);
    write(CONFIG + COMMAND, MEMORY, 0);
  });

  test('MSI is virtual: address and data are scratch, and only SET_IRQS turns it on', () => {
    const msi = CONFIG + 0x40;
    expect(read(msi, 4)).toEqual([5, 0, 0x80, 0]);
    write(msi, 0xff, 0xff, 0xff, 0xff);
    expect(read(msi, 4)).toEqual([5, 0, 0x8e, 0]);
    write(msi + 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    expect(read(msi + 4, 10)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    write(msi + 2, 0);
    expect(read(msi, 4)).toEqual([5, 0, 0, 0]);
  });

  test('closing forgets what was written', () => {
    write(CONFIG + 0x10, 0, 0, 0, 0x12);
    write(CONFIG + 0x3c, 0x77);
    write(CONFIG + COMMAND, BUS_MASTER, 4);
    calls.shut(vfio);
    vfio = calls.vfio();
    calls.bind(vfio);
    expect((read(CONFIG + 0x10, 4) as number[])[3]).not.toBe(0x12);
    expect(read(CONFIG + 0x3c, 1)).not.toEqual([0x77]);
    expect((read(CONFIG + COMMAND, 1) as number[])[0] & (MEMORY | BUS_MASTER)).toBe(MEMORY);
    expect((read(CONFIG + COMMAND + 1, 1) as number[])[0] & 4).toBe(0);
  });
});
