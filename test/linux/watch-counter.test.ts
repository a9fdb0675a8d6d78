/** The watch of an eventfd that is read behind each callback: a ring is never lost, and none is made up. */
import { EFD_NONBLOCK } from '../../lib/kernel';
import type { Watch } from '../../lib/kernel';
import { LinuxKernel } from '../../lib/linux/kernel';
import { errno } from '../../lib/uapi/errno';
import { describeLinux } from './has-addon';

describeLinux('the watch of a counter', () => {
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

  function watch(callback: (...given: unknown[]) => void): Watch {
    const result = kernel.rings.watchCounter(fd, callback);
    if (typeof result === 'number') throw new Error(`watchCounter: ${result}`);
    watches.push(result);
    return result;
  }

  const ring = () => expect(kernel.write(fd, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0))).toBe(8);
  const count = () => kernel.read(fd, new Uint8Array(8));
  async function turns(): Promise<void> {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  test('one ring, one callback, without arguments; the counter is 0 behind it', async () => {
    const calls: unknown[][] = [];
    watch((...given) => calls.push(given));
    for (let rings = 1; rings <= 3; rings++) {
      ring();
      await turns();
      expect(calls).toEqual(Array.from({ length: rings }, () => []));
      expect(count()).toBe(-errno.EAGAIN);
    }
  });

  // Who looks, finds nothing and sleeps must hear of what came while it looked.
  test.each([1, 2, 5])('a ring in the callback calls back again, %i times in a row', async (times) => {
    let calls = 0;
    watch(() => {
      if (calls++ < times) ring();
    });
    ring();
    for (let i = 0; i <= times; i++) await turns();
    expect(calls).toBe(times + 1);
    expect(count()).toBe(-errno.EAGAIN);
  });

  test('in a promise job behind the callback, likewise', async () => {
    let calls = 0;
    watch(() => {
      if (calls++ === 0) void Promise.resolve().then(ring);
    });
    ring();
    await turns();
    expect(calls).toBe(2);
  });

  test('several rings before it are seen twice at most', async () => {
    let calls = 0;
    watch(() => calls++);
    for (let i = 0; i < 10; i++) ring();
    await turns();
    expect(calls).toBe(2);
    expect(count()).toBe(-errno.EAGAIN);
  });

  test('closed in its callback it leaves the counter to others', async () => {
    let calls = 0;
    const first = watch(() => {
      calls++;
      first.close();
    });
    ring();
    await turns();
    expect([calls, count()]).toEqual([1, 8]);
  });

  test('a callback that never stops ringing does not keep the event loop', async () => {
    let calls = 0;
    const endless = watch(() => {
      calls++;
      ring();
    });
    ring();
    await turns();
    expect(calls).toBeLessThan(20);
    endless.close();
  });
});
