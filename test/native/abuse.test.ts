import { readFileSync } from 'node:fs';
import { describeLinux, needAddon } from '../linux/has-addon';
import { runChild } from './child';

/** What `call` throws, as 'TypeError: message'; a test's realm has error classes of its own. */
function thrown(call: () => unknown): string {
  try {
    return `nothing: ${String(call())}`;
  } catch (error) {
    return String(error);
  }
}

describeLinux('wrong arguments of the addon', () => {
  const NO_FD = 0x7fffffff;
  const bytes = new Uint8Array(8);
  const callback = () => undefined;

  // Every argument of every function: a call that is right but for it, at the place given.
  const calls: [name: string, right: unknown[], wrong: [index: number, value: unknown, error: RegExp][]][] = [
    [
      'open',
      ['/dev/null', 0],
      [
        [0, 7, /^TypeError: path/],
        [0, 'a\0b', /^TypeError: path/],
        [1, '0', /^TypeError: flags/],
        [1, 2 ** 31, /^RangeError: flags/],
      ],
    ],
    [
      'close',
      [NO_FD],
      [
        [0, '1', /^TypeError: fd/],
        [0, NaN, /^RangeError: fd/],
        [0, 2 ** 31, /^RangeError: fd/],
        [0, undefined, /^TypeError: fd/],
      ],
    ],
    [
      'ioctl',
      [NO_FD, 0x3b81, bytes],
      [
        [0, null, /^TypeError: fd/],
        [1, -1, /^RangeError: request/],
        [1, 2 ** 32, /^RangeError: request/],
        [1, 1n, /^TypeError: request/],
        [2, 'x', /^TypeError: argument/],
        [2, null, /^TypeError: argument/],
        [2, 0.5, /^RangeError: argument/],
        [2, 2 ** 53, /^RangeError: argument/],
        [2, new Uint8Array(0), /^RangeError: argument/],
        [2, new Float64Array(8), /^TypeError: argument/],
        [2, new ArrayBuffer(8), /^TypeError: argument/],
      ],
    ],
    [
      'read',
      [NO_FD, bytes],
      [
        [0, 1.5, /^RangeError: fd/],
        [1, [], /^TypeError: bytes/],
        [1, new Uint16Array(4), /^TypeError: bytes/],
      ],
    ],
    [
      'write',
      [NO_FD, bytes],
      [
        [0, {}, /^TypeError: fd/],
        [1, 'text', /^TypeError: bytes/],
      ],
    ],
    [
      'pread',
      [NO_FD, bytes, 0],
      [
        [0, true, /^TypeError: fd/],
        [1, null, /^TypeError: bytes/],
        [2, -1, /^RangeError: offset/],
        [2, 2 ** 53, /^RangeError: offset/],
        [2, 0n, /^TypeError: offset/],
      ],
    ],
    [
      'pwrite',
      [NO_FD, bytes, 0],
      [
        [0, '', /^TypeError: fd/],
        [1, 1, /^TypeError: bytes/],
        [2, Infinity, /^RangeError: offset/],
        [2, undefined, /^TypeError: offset/],
      ],
    ],
    [
      'poll',
      [NO_FD, 1],
      [
        [0, [], /^TypeError: fd/],
        [1, -1, /^RangeError: events/],
        [1, 0x8000, /^RangeError: events/],
      ],
    ],
    [
      'eventfd',
      [0, 0x40000000],
      [
        [0, -1, /^RangeError: initial/],
        [0, 2 ** 32, /^RangeError: initial/],
        [1, 'x', /^TypeError: flags/],
      ],
    ],
    [
      'adopt',
      [NO_FD],
      [
        [0, undefined, /^TypeError: fd/],
        [0, 2 ** 31, /^RangeError: fd/],
      ],
    ],
    [
      'addressOf',
      [bytes],
      [
        [0, new ArrayBuffer(8), /^TypeError: bytes/],
        [0, undefined, /^TypeError: bytes/],
        [0, [1], /^TypeError: bytes/],
      ],
    ],
    [
      'allocate',
      [0, false, false],
      [
        [0, -1, /^RangeError: length/],
        [0, '1', /^TypeError: length/],
        [1, 1, /^TypeError: hugePages/],
        [2, undefined, /^TypeError: memfd/],
      ],
    ],
    [
      'mmap',
      [NO_FD, 0, 1, 1],
      [
        [0, 'x', /^TypeError: fd/],
        [1, -4096, /^RangeError: offset/],
        [2, 1.5, /^RangeError: length/],
        [3, 0, /^RangeError: protection/],
        [3, 4, /^RangeError: protection/],
      ],
    ],
    [
      'watch',
      [NO_FD, 1, callback],
      [
        [0, undefined, /^TypeError: fd/],
        [1, 8, /^RangeError: events/],
        [2, {}, /^TypeError: callback/],
      ],
    ],
  ];

  test.each(calls)('%s', (name, right, wrong) => {
    const call: unknown = Reflect.get(needAddon(), name);
    if (typeof call !== 'function') throw new Error(`${name} is no function`);
    expect(thrown(() => Reflect.apply(call, undefined, right))).toMatch(/^nothing: /);
    for (const [index, value, error] of wrong) {
      expect(thrown(() => Reflect.apply(call, undefined, right.with(index, value)))).toMatch(error);
    }
    if (right.length > 0) expect(thrown(() => Reflect.apply(call, undefined, []))).toMatch(/^TypeError: /);
  });

  test.each(['free', 'release', 'unmap', 'closeWatch', 'refWatch', 'unrefWatch'])(
    '%s of no handle',
    (name) => {
      const call: unknown = Reflect.get(needAddon(), name);
      if (typeof call !== 'function') throw new Error(`${name} is no function`);
      for (const handle of [0, 1, 0x7fffffff]) {
        expect(thrown(() => Reflect.apply(call, undefined, [handle, new ArrayBuffer(8)]))).toMatch(
          /^RangeError: handle/,
        );
      }
      for (const handle of [-1, 0.5, NaN]) {
        expect(thrown(() => Reflect.apply(call, undefined, [handle]))).toMatch(/^RangeError: handle/);
      }
      expect(thrown(() => Reflect.apply(call, undefined, ['0']))).toMatch(/^TypeError: handle/);
    },
  );

  test('loads and stores', () => {
    const addon = needAddon();
    const memory = addon.allocate(1, false, true);
    if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
    const mapping = addon.mmap(memory.fd, 0, 64, 3);
    for (const width of [0, 3, 5, 8, 1.5, -1]) {
      expect(thrown(() => addon.load(mapping, 0, width))).toMatch(/^RangeError: width/);
      expect(thrown(() => addon.store(mapping, 0, width, 0))).toMatch(/^RangeError: width/);
    }
    expect(thrown(() => addon.load(mapping, 64, 1))).toMatch(/^RangeError: offset/);
    expect(thrown(() => addon.load(mapping, 2 ** 52, 1))).toMatch(/^RangeError: offset/);
    expect(thrown(() => addon.load(mapping, NaN, 1))).toMatch(/^RangeError: offset/);
    expect(thrown(() => addon.load(mapping + 1, 0, 1))).toMatch(/^TypeError: mapping/);
    expect(thrown(() => addon.load(-1, 0, 1))).toMatch(/^TypeError: mapping/);
    expect(thrown(() => addon.store64(mapping, 0, 2n ** 64n))).toMatch(/^RangeError: value/);
    expect(thrown(() => Reflect.apply(addon.store64, undefined, [mapping, 0, 1]))).toMatch(
      /^TypeError: value/,
    );
    expect(thrown(() => Reflect.apply(addon.store, undefined, [mapping, 0, 4, 1n]))).toMatch(
      /^TypeError: value/,
    );
    expect(thrown(() => addon.storeBlock(mapping, 0, new Uint8Array(65)))).toMatch(/^RangeError: bytes/);
    expect(thrown(() => Reflect.apply(addon.storeBlock, undefined, [mapping, 0, 'x']))).toMatch(
      /^TypeError: bytes/,
    );
    expect(addon.load64(mapping, 0)).toBe(0n);
    addon.unmap(mapping);
    expect(thrown(() => addon.load(mapping, 0, 1))).toMatch(/^TypeError: mapping/);
    // The right handle with a wrong buffer: the memory is given up, and that buffer left alone.
    const other = new ArrayBuffer(64);
    expect(thrown(() => Reflect.apply(addon.free, undefined, [memory.handle, {}]))).toMatch(
      /^TypeError: buffer/,
    );
    addon.free(memory.handle, other);
    expect([other.byteLength, memory.buffer.byteLength]).toEqual([64, addon.pageSize]);
  });

  test('a call page that somebody has detached: nothing moves, and nothing is called again', () => {
    expect(runChild('detached-page')).toEqual({ end: 0, stdout: 'done\n', stderr: '' });
  });

  test('random calls never crash', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    console.log(`seed ${seed}`);
    const { end, stdout, stderr } = runChild('abuse', String(seed));
    expect({ end, stderr }).toEqual({ end: 0, stderr: '' });
    // The right calls among them got through, to every function.
    const counts: Record<string, number> = JSON.parse(stdout);
    const functions = Object.entries(needAddon()).filter(([, value]) => typeof value === 'function');
    // No processor without the instruction makes a store of 64 bytes.
    const never = [
      'close',
      ...(readFileSync('/proc/cpuinfo', 'utf8').includes('movdir64b') ? [] : ['storeBlock']),
    ];
    for (const [name] of functions.filter(([each]) => !never.includes(each))) {
      expect([name, counts[name] > 0]).toEqual([name, true]);
    }
    expect(counts.refused).toBeGreaterThan(1000);
  });
});
