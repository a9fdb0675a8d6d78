import { AsyncLocalStorage } from 'node:async_hooks';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  EFD_NONBLOCK,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLERR,
  POLLIN,
  POLLOUT,
} from '../../lib/kernel';
import type { Watch } from '../../lib/kernel';
import { LinuxKernel } from '../../lib/linux/kernel';
import { errno } from '../../lib/uapi/errno';
import { describeLinux } from './has-addon';

const NO_FD = 0x7fffffff;

describeLinux('watch', () => {
  let kernel: LinuxKernel;
  let fd: number;
  const watches: Watch[] = [];
  beforeAll(() => {
    kernel = new LinuxKernel();
  });
  beforeEach(() => {
    fd = kernel.eventfd(0, EFD_NONBLOCK);
  });
  afterEach(() => {
    for (const watch of watches.splice(0)) watch.close();
    kernel.close(fd);
  });

  function watch(events: number, callback: (ready: number) => void, on = fd): Watch {
    const result = kernel.watch(on, events, callback);
    if (typeof result === 'number') throw new Error(`watch: ${result}`);
    watches.push(result);
    return result;
  }

  const signal = (value = 1) => kernel.write(fd, Uint8Array.of(value, 0, 0, 0, 0, 0, 0, 0));
  const drain = () => kernel.read(fd, new Uint8Array(8));
  /** Enough turns of the event loop for everything that is ready to be reported. */
  async function turns(): Promise<void> {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  test('calls back with what is ready', async () => {
    const ready = await new Promise<number>((resolve) => {
      watch(POLLIN, (bits) => {
        drain();
        resolve(bits);
      });
      expect(signal()).toBe(8);
    });
    expect(ready).toBe(POLLIN);
    expect(kernel.poll(fd, POLLIN)).toBe(0);
  });

  test('is level-triggered, and quiet when nothing is ready', async () => {
    let calls = 0;
    watch(POLLIN, () => {
      if (++calls === 3) drain();
    });
    await turns();
    expect(calls).toBe(0);
    signal();
    await turns();
    await turns();
    expect(calls).toBe(3);
  });

  test('reports only the events asked for', async () => {
    const seen = new Set<number>();
    const one = watch(POLLOUT, (bits) => seen.add(bits));
    signal();
    await turns();
    one.close();
    expect([...seen]).toEqual([POLLOUT]);
  });

  test('several on one descriptor, each with its own end', async () => {
    const calls = [0, 0];
    const first = watch(POLLIN, () => calls[0]++);
    watch(POLLIN, () => calls[1]++);
    first.close();
    first.close();
    signal();
    await turns();
    expect(calls[0]).toBe(0);
    expect(calls[1]).toBeGreaterThan(0);
  });

  test('closed in its own callback, it calls no more', async () => {
    let calls = 0;
    const own = watch(POLLIN, () => {
      calls++;
      own.close();
    });
    signal();
    await turns();
    expect(calls).toBe(1);
    own.ref();
    own.unref();
  });

  test('closed, it lets go of the file at once', () => {
    const pipe = join(mkdtempSync(join(tmpdir(), 'iommufd-test-')), 'pipe');
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0);
    const reader = kernel.open(pipe, O_RDONLY | O_NONBLOCK);
    const open = watch(POLLIN, () => undefined, reader);
    kernel.close(reader);
    const writer = kernel.open(pipe, O_WRONLY | O_NONBLOCK);
    expect(writer).toBeGreaterThanOrEqual(0);
    kernel.close(writer);
    open.close();
    expect(kernel.open(pipe, O_WRONLY | O_NONBLOCK)).toBe(-errno.ENXIO);
    rmSync(join(pipe, '..'), { recursive: true });
  });

  test('reports errors as poll(2) does, and goes on', async () => {
    // A counter at its maximum is an error of an eventfd; only the kernel can bring it there, but a pipe whose reader
    // has gone has one as well.
    const pipe = join(mkdtempSync(join(tmpdir(), 'iommufd-test-')), 'pipe');
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0);
    const reader = kernel.open(pipe, O_RDONLY | O_NONBLOCK);
    const writer = kernel.open(pipe, O_WRONLY | O_NONBLOCK);
    const seen: number[] = [];
    watch(POLLOUT, (bits) => seen.push(bits), writer);
    kernel.close(reader);
    await turns();
    expect(seen.length).toBeGreaterThan(1);
    expect(new Set(seen)).toEqual(new Set([POLLOUT | POLLERR]));
    const again = kernel.open(pipe, O_RDONLY | O_NONBLOCK);
    seen.length = 0;
    await turns();
    expect(new Set(seen)).toEqual(new Set([POLLOUT]));
    kernel.close(again);
    watches.splice(0).forEach((each) => each.close());
    kernel.close(writer);
    rmSync(join(pipe, '..'), { recursive: true });
  });

  test('leaves a blocking descriptor blocking', () => {
    const blocking = kernel.eventfd(0, 0);
    const flags = () =>
      kernel
        .readFile(`/proc/self/fdinfo/${blocking}`)
        .toString()
        .match(/flags:\s*(\d+)/)?.[1];
    const before = flags();
    expect(Number.parseInt(String(before), 8) & O_NONBLOCK).toBe(0);
    watch(POLLIN, () => undefined, blocking).close();
    expect(flags()).toBe(before);
    kernel.close(blocking);
  });

  test('runs in the async context it was made in', async () => {
    const storage = new AsyncLocalStorage<string>();
    const seen = await new Promise<string | undefined>((resolve) => {
      storage.run('mine', () =>
        watch(POLLIN, () => {
          drain();
          resolve(storage.getStore());
        }),
      );
      signal();
    });
    expect(seen).toBe('mine');
  });

  test('runs promise jobs after each callback', async () => {
    const order: string[] = [];
    await new Promise<void>((resolve) => {
      const each = (name: string) => () => {
        order.push(name);
        void Promise.resolve().then(() => order.push(`${name} job`));
        if (order.length > 2) resolve();
      };
      const first = watch(POLLIN, () => {
        each('first')();
        first.close();
      });
      const second = watch(POLLIN, () => {
        each('second')();
        second.close();
      });
      signal();
    });
    expect([order[1], order[3]]).toEqual([`${order[0]} job`, `${order[2]} job`]);
  });

  test('errors', () => {
    const nothing = () => undefined;
    expect(kernel.watch(NO_FD, POLLIN, nothing)).toBe(-errno.EBADF);
    expect(kernel.watch(-1, POLLIN, nothing)).toBe(-errno.EBADF);
    const regular = kernel.open(process.execPath, O_RDONLY);
    expect(kernel.watch(regular, POLLIN, nothing)).toBe(-errno.EPERM);
    kernel.close(regular);
    const zero = kernel.open('/dev/zero', O_RDWR);
    expect(kernel.watch(zero, POLLIN, nothing)).toBe(-errno.EPERM);
    kernel.close(zero);
    expect(() => kernel.watch(fd, 0, nothing)).toThrow(/events must be/);
    expect(() => kernel.watch(fd, POLLERR, nothing)).toThrow(/events must be/);
  });

  /** It is read behind each callback: a ring is never lost, and none is made up. */
  describe('of a counter', () => {
    function counted(callback: (...given: unknown[]) => void): Watch {
      const result = kernel.rings.watchCounter(fd, callback);
      if (typeof result === 'number') throw new Error(`watchCounter: ${result}`);
      watches.push(result);
      return result;
    }
    const ring = () => expect(signal()).toBe(8);

    test('one ring, one callback, without arguments; the counter is 0 behind it', async () => {
      const calls: unknown[][] = [];
      counted((...given) => calls.push(given));
      for (let rings = 1; rings <= 3; rings++) {
        ring();
        await turns();
        expect(calls).toEqual(Array.from({ length: rings }, () => []));
        expect(drain()).toBe(-errno.EAGAIN);
      }
    });

    // Who looks, finds nothing and sleeps must hear of what came while it looked.
    test.each([1, 2, 5])('a ring in the callback calls back again, %i times in a row', async (times) => {
      let calls = 0;
      counted(() => {
        if (calls++ < times) ring();
      });
      ring();
      for (let i = 0; i <= times; i++) await turns();
      expect(calls).toBe(times + 1);
      expect(drain()).toBe(-errno.EAGAIN);
    });

    test('in a promise job behind the callback, likewise', async () => {
      let calls = 0;
      counted(() => {
        if (calls++ === 0) void Promise.resolve().then(ring);
      });
      ring();
      await turns();
      expect(calls).toBe(2);
    });

    test('several rings before it are seen twice at most', async () => {
      let calls = 0;
      counted(() => calls++);
      for (let i = 0; i < 10; i++) ring();
      await turns();
      expect(calls).toBe(2);
      expect(drain()).toBe(-errno.EAGAIN);
    });

    test('closed in its callback it leaves the counter to others', async () => {
      let calls = 0;
      const first = counted(() => {
        calls++;
        first.close();
      });
      ring();
      await turns();
      expect([calls, drain()]).toEqual([1, 8]);
    });

    test('a callback that never stops ringing does not keep the event loop', async () => {
      let calls = 0;
      const endless = counted(() => {
        calls++;
        ring();
      });
      ring();
      await turns();
      expect(calls).toBeLessThan(20);
      endless.close();
    });
  });
});
