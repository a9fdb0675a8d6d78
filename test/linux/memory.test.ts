import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { O_RDWR, PROT_READ, PROT_WRITE } from '../../lib/kernel';
import type { DeviceMapping, Memory } from '../../lib/kernel';
import { LinuxKernel } from '../../lib/linux/kernel';
import { errno } from '../../lib/uapi/errno';
import { describeLinux } from './has-addon';

const NO_FD = 0x7fffffff;

describeLinux('memory', () => {
  let kernel: LinuxKernel;
  let page: number;
  beforeAll(() => {
    kernel = new LinuxKernel();
    page = kernel.pageSize;
  });

  function allocate(length: number, options?: { memfd?: boolean; hugePages?: boolean }): Memory {
    const memory = kernel.allocate(length, options);
    if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
    return memory;
  }

  test('is whole pages, aligned, zeroed', () => {
    const memory = allocate(page + 1);
    expect(memory.length).toBe(2 * page);
    expect(memory.bytes.length).toBe(2 * page);
    expect(memory.address % BigInt(page)).toBe(0n);
    expect(memory.address).toBe(kernel.addressOf(memory.bytes));
    expect(memory.fd).toBe(-1);
    expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
    memory.bytes.fill(0xa5);
    expect(memory.bytes[2 * page - 1]).toBe(0xa5);
    memory.free();
  });

  test('free detaches, and may be repeated', () => {
    const memory = allocate(page, { memfd: true });
    const view = new DataView(memory.bytes.buffer, 8, 8);
    expect(fstatSync(memory.fd).size).toBe(page);
    memory.free();
    expect(memory.bytes.length).toBe(0);
    expect(() => view.getUint8(0)).toThrow();
    expect(() => fstatSync(memory.fd)).toThrow(/EBADF/);
    expect(() => kernel.addressOf(memory.bytes)).toThrow(/detached/);
    expect(() => kernel.read(NO_FD, memory.bytes)).toThrow(/detached/);
    const other = openSync('/dev/null', 'r');
    memory.free();
    closeSync(other);
  });

  test('a memfd is the same memory', () => {
    const memory = allocate(2 * page, { memfd: true });
    memory.bytes[page] = 42;
    const bytes = new Uint8Array(1);
    expect(kernel.pread(memory.fd, bytes, page)).toBe(1);
    expect(bytes[0]).toBe(42);
    expect(kernel.pwrite(memory.fd, Buffer.from([43]), page)).toBe(1);
    expect(memory.bytes[page]).toBe(43);
    memory.free();
  });

  test('survives a buffer that was transferred away', () => {
    const memory = allocate(page);
    memory.bytes[5] = 9;
    const copy = structuredClone(new Uint8Array(memory.bytes));
    // Node 20 copies and detaches, later ones throw: the memory must be sound after either.
    try {
      structuredClone(memory.bytes.buffer, { transfer: [memory.bytes.buffer] });
    } catch (error) {
      expect(String(error)).toMatch(/DataCloneError/);
    }
    expect(copy[5]).toBe(9);
    memory.free();
    expect(memory.bytes.length).toBe(0);
  });

  test('huge pages, or ENOMEM where none are reserved', () => {
    const text = kernel.readFile('/proc/meminfo');
    const free = Number(/HugePages_Free:\s+(\d+)/.exec(String(text))?.[1] ?? 0);
    for (const memfd of [false, true]) {
      const memory = kernel.allocate(1, { hugePages: true, memfd });
      if (typeof memory === 'number') {
        expect(free).toBe(0);
        // EINVAL, ENOSYS or ENODEV: a kernel without hugetlbfs.
        expect([-errno.ENOMEM, -errno.EINVAL, -errno.ENOSYS, -errno.ENODEV]).toContain(memory);
        continue;
      }
      expect(memory.length).toBeGreaterThan(page);
      memory.bytes[memory.length - 1] = 1;
      memory.free();
      expect(memory.bytes.length).toBe(0);
    }
  });

  test('what there is no room for', () => {
    expect(kernel.allocate(0)).toBe(-errno.EINVAL);
    expect(kernel.allocate(2 ** 46)).toBe(-errno.ENOMEM);
    expect(kernel.allocate(Number.MAX_SAFE_INTEGER, { memfd: true })).toBe(-errno.ENOMEM);
    for (const length of [-1, 1.5, NaN]) expect(() => kernel.allocate(length)).toThrow(/length must be/);
  });

  test('addressOf any view', () => {
    const buffer = new ArrayBuffer(64);
    const base = kernel.addressOf(new Uint8Array(buffer));
    expect(kernel.addressOf(new DataView(buffer, 3))).toBe(base + 3n);
    expect(kernel.addressOf(new BigUint64Array(buffer, 8))).toBe(base + 8n);
    expect(kernel.addressOf(new Float32Array(buffer, 4, 0))).toBe(base + 4n);
    const shared = new SharedArrayBuffer(16);
    const start = kernel.addressOf(new Int32Array(shared));
    expect(kernel.addressOf(new DataView(shared, 12))).toBe(start + 12n);
    const onHeap = new Uint8Array(8);
    expect(kernel.addressOf(onHeap)).toBe(kernel.addressOf(onHeap));
  });

  describe('device mapping', () => {
    let memory: Memory;
    let view: DataView;
    let mapping: DeviceMapping;

    function map(fd: number, offset: number, length: number, protection: number): DeviceMapping {
      const result = kernel.mmap(fd, offset, length, protection);
      if (typeof result === 'number') throw new Error(`mmap: ${result}`);
      return result;
    }

    beforeEach(() => {
      memory = allocate(2 * page, { memfd: true });
      view = new DataView(memory.bytes.buffer);
      mapping = map(memory.fd, page, page, PROT_READ | PROT_WRITE);
    });
    afterEach(() => {
      mapping.unmap();
      memory.free();
    });

    test('loads of every width', () => {
      view.setBigUint64(page + 8, 0xfedcba9876543210n, true);
      expect(mapping.length).toBe(page);
      expect(mapping.load(8, 1)).toBe(0x10);
      expect(mapping.load(15, 1)).toBe(0xfe);
      expect(mapping.load(14, 2)).toBe(0xfedc);
      expect(mapping.load(12, 4)).toBe(0xfedcba98);
      expect(mapping.load64(8)).toBe(0xfedcba9876543210n);
    });

    test('stores of every width touch no other byte', () => {
      memory.bytes.fill(0xee);
      mapping.store(1, 1, 0xff);
      mapping.store(4, 2, 0xabcd);
      mapping.store(8, 4, 0xdeadbeef);
      mapping.store64(page - 8, 2n ** 64n - 2n);
      const expected = new Uint8Array(page).fill(0xee);
      expected.set([0xff], 1);
      expected.set([0xcd, 0xab], 4);
      expected.set([0xef, 0xbe, 0xad, 0xde], 8);
      expected.set([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], page - 8);
      expect(Buffer.compare(memory.bytes.subarray(page), expected)).toBe(0);
      expect(memory.bytes.subarray(0, page).every((byte) => byte === 0xee)).toBe(true);
    });

    test('a store of 64 bytes is made, or nothing is', () => {
      const block = Uint8Array.from({ length: 64 }, (_, i) => i + 1);
      const able = readFileSync('/proc/cpuinfo', 'utf8').includes('movdir64b');
      expect(mapping.storeBlock(128, block)).toBe(able ? 0 : -95);
      const expected = new Uint8Array(page);
      if (able) expected.set(block, 128);
      expect(Buffer.compare(memory.bytes.subarray(page), expected)).toBe(0);
      expect(() => mapping.storeBlock(32, block)).toThrow(/multiple of the width/);
      expect(() => mapping.storeBlock(page, block)).toThrow(/offset must be/);
      expect(() => mapping.storeBlock(0, block.subarray(1))).toThrow(/bytes must be 64 long/);
    });

    test('misuse', () => {
      expect(() => mapping.load(page, 1)).toThrow(/offset must be/);
      expect(() => mapping.load(page - 2, 4)).toThrow(/offset must be/);
      expect(() => mapping.load(-1, 1)).toThrow(/offset must be/);
      expect(() => mapping.load(2, 4)).toThrow(/multiple of the width/);
      expect(() => mapping.load64(4)).toThrow(/multiple of the width/);
      expect(() => mapping.load64(page)).toThrow(/offset must be/);
      expect(() => mapping.store(0, 1, 256)).toThrow(/value must be/);
      expect(() => mapping.store(0, 2, -1)).toThrow(/value must be/);
      expect(() => mapping.store(0, 4, 2 ** 32)).toThrow(/value must be/);
      expect(() => mapping.store64(0, 2n ** 64n)).toThrow(/value must be/);
      expect(() => mapping.store64(0, -1n)).toThrow(/value must be/);
      expect(view.getBigUint64(page, true)).toBe(0n);
    });

    test('protection holds', () => {
      const readable = map(memory.fd, 0, page, PROT_READ);
      expect(readable.load(0, 4)).toBe(0);
      expect(() => readable.store(0, 4, 1)).toThrow(/writable/);
      readable.unmap();
      const writable = map(memory.fd, 0, page, PROT_WRITE);
      writable.store(0, 4, 1);
      expect(() => writable.load(0, 4)).toThrow(/readable/);
      writable.unmap();
      expect(memory.bytes[0]).toBe(1);
    });

    test('accesses after unmap throw', () => {
      mapping.unmap();
      mapping.unmap();
      expect(() => mapping.load(0, 4)).toThrow(/unmapped/);
      expect(() => mapping.store64(0, 1n)).toThrow(/unmapped/);
    });

    test('a length that is no whole page', () => {
      const short = map(memory.fd, 0, 10, PROT_READ);
      expect(short.length).toBe(10);
      expect(short.load64(0)).toBe(0n);
      expect(() => short.load64(8)).toThrow(/offset must be/);
      short.unmap();
    });

    test('a mapping outlives the descriptor', () => {
      memory.bytes[page] = 77;
      memory.free();
      expect(mapping.load(0, 1)).toBe(77);
    });

    test('errors', () => {
      const both = PROT_READ | PROT_WRITE;
      expect(kernel.mmap(memory.fd, 0, 0, both)).toBe(-errno.EINVAL);
      expect(kernel.mmap(memory.fd, 1, page, both)).toBe(-errno.EINVAL);
      expect(kernel.mmap(NO_FD, 0, page, both)).toBe(-errno.EBADF);
      const events = kernel.eventfd(0, 0);
      expect(kernel.mmap(events, 0, page, both)).toBe(-errno.ENODEV);
      kernel.close(events);
      const zero = kernel.open('/dev/null', O_RDWR);
      expect(kernel.mmap(zero, 0, page, both)).toBe(-errno.ENODEV);
      kernel.close(zero);
    });

    test('nothing is mapped beyond the end of a file', () => {
      const both = PROT_READ | PROT_WRITE;
      const folder = mkdtempSync(join(tmpdir(), 'iommufd-'));
      const file = openSync(join(folder, 'file'), 'w+');
      ftruncateSync(file, 2 * page - 100);
      expect(kernel.mmap(file, page, page + 1, both)).toBe(-errno.EINVAL);
      expect(kernel.mmap(file, 2 * page, 1, both)).toBe(-errno.EINVAL);
      const last = map(file, page, page, both);
      expect(last.load(page - 1, 1)).toBe(0);
      last.unmap();
      closeSync(file);
      rmSync(folder, { recursive: true });
    });

    test('nobody can make a memfd smaller, or larger', () => {
      expect(() => ftruncateSync(memory.fd, page)).toThrow(/EPERM/);
      expect(() => ftruncateSync(memory.fd, 3 * page)).toThrow(/EPERM/);
    });
  });
});
