/** Watches on the event loop: level-triggered, and no longer than they are wanted. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { POLLIN, POLLOUT } from '../../../lib/kernel';
import type { Watch } from '../../../lib/kernel';
import { Bench } from './bench';
import { ProbeFunction } from './probe-function';

const ONE = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);
const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('watch', () => {
  let bench: Bench;
  let fd: number;
  const watches: Watch[] = [];
  const watch = (events: number, callback: (ready: number) => void): Watch => {
    const made = bench.kernel.watch(fd, events, callback) as Watch;
    watches.push(made);
    return made;
  };
  beforeEach(() => {
    bench = new Bench();
    fd = bench.eventfd();
  });
  afterEach(() => {
    for (const each of watches.splice(0)) each.close();
  });

  test('calls back later, not at once, and only for what was asked', async () => {
    const calls: number[] = [];
    watch(POLLIN, (ready) => calls.push(ready));
    await turns(3);
    expect(calls).toEqual([]);
    bench.kernel.write(fd, ONE);
    expect(calls).toEqual([]);
    await turns(1);
    expect(calls).toEqual([POLLIN]);
  });

  test('goes on while nobody reads, once a turn', async () => {
    let calls = 0;
    watch(POLLIN, () => calls++);
    bench.kernel.write(fd, ONE);
    bench.kernel.write(fd, ONE);
    await turns(5);
    expect(calls).toBeGreaterThanOrEqual(4);
    expect(calls).toBeLessThanOrEqual(6);
    bench.count(fd);
    const now = calls;
    await turns(3);
    expect(calls).toBe(now);
  });

  test('is ready at once where the file is', async () => {
    let calls = 0;
    const made = watch(POLLOUT, () => {
      if (++calls === 2) made.close();
    });
    await turns(5);
    expect(calls).toBe(2);
  });

  test('what is over when the turn comes is not reported', async () => {
    let calls = 0;
    watch(POLLIN, () => calls++);
    bench.kernel.write(fd, ONE);
    bench.count(fd);
    await turns(3);
    expect(calls).toBe(0);
  });

  test('a callback may close it, or write again', async () => {
    const seen: number[] = [];
    const made = watch(POLLIN, () => {
      seen.push(bench.count(fd));
      bench.kernel.write(fd, ONE);
      if (seen.length === 3) made.close();
    });
    bench.kernel.write(fd, ONE);
    await turns(8);
    expect(seen).toEqual([1, 1, 1]);
    made.close();
  });

  test('what simulated events make ready ends the wait in the turn in which they happen', async () => {
    const probe = new ProbeFunction();
    bench = new Bench({ manual: false }, probe);
    fd = bench.eventfd();
    const order: string[] = [];
    watch(POLLIN, () => order.push(`ready ${bench.count(fd)}`));
    probe.later(1, () => {
      bench.kernel.write(fd, ONE);
      order.push('event');
    });
    setImmediate(() => order.push('next'));
    await turns(2);
    expect(order).toEqual(['event', 'ready 1', 'next']);
  });

  test('without a reference it does not keep a program alive whose callbacks cause the next event', () => {
    const program = `
      const { Bench } = require('./bench');
      const { ProbeFunction } = require('./probe-function');
      const probe = new ProbeFunction();
      const bench = new Bench({ manual: false }, probe);
      const fd = bench.eventfd();
      const again = () => probe.later(1000, () => bench.kernel.write(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0])));
      let calls = 0;
      const watch = bench.kernel.watch(fd, 1, () => {
        bench.count(fd);
        if (++calls === 1000) process.exit(1);
        again();
      });
      watch.unref();
      again();`;
    expect(spawnSync(process.execPath, ['-e', program], { cwd: __dirname }).status).toBe(0);
  });

  test('it outlives the descriptor, as a duplicate would', async () => {
    let calls = 0;
    watch(POLLIN, () => calls++);
    bench.kernel.write(fd, ONE);
    bench.kernel.close(fd);
    await turns(2);
    expect(calls).toBeGreaterThan(0);
  });

  test('two watches on one file both hear', async () => {
    const heard = new Set<string>();
    watch(POLLIN, () => heard.add('a'));
    watch(POLLIN, () => heard.add('b'));
    bench.kernel.write(fd, ONE);
    await turns(2);
    expect([...heard]).toEqual(['a', 'b']);
  });

  test.each([
    ['keeps the program alive', '', 'late'],
    ['does not, without a reference', 'watch.unref();', ''],
    ['does again, with one', 'watch.unref(); watch.ref();', 'late'],
    ['does not, once closed', 'watch.close();', ''],
  ])('%s', (_name, statement, output) => {
    const sim = join(__dirname, '../../../lib/sim');
    const program = `
      const { Machine } = require(${JSON.stringify(sim)});
      const kernel = new Machine().process();
      const fd = kernel.eventfd(0, 0);
      const watch = kernel.watch(fd, 1, () => {});
      setTimeout(() => { console.log('late'); process.exit(); }, 50).unref();
      ${statement}`;
    const { stdout, status } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect([stdout.trim(), status]).toEqual([output, 0]);
  });
});
