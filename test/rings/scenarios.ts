/** What every pump has to do with a kernel's fault file: run against SoftwarePump here, and the addon's in a child. */
import assert from 'node:assert/strict';
import type { Fault } from '../../lib/fault';
import type { FaultConsumer } from '../../lib/fault-consumer';
import type { Pump } from '../../lib/rings/pump';
import type { Ring } from '../../lib/rings/ring';
import { errno, IOMMU_PGFAULT_FLAGS_LAST_PAGE as LAST } from '../../lib/uapi';
import { groupOf, type FaultFile } from './fault-file';

export interface RigOptions {
  /** Slots for records and for responses. */
  readonly slots?: number;
  readonly limit?: number;
  /** The first index. */
  readonly start?: number;
  /** A ring of events of this many bytes at most, which no consumer takes. */
  readonly events?: number;
}

export interface Rig {
  readonly file: FaultFile;
  readonly ring: Ring;
  readonly pump: Pump;
  readonly consumer: FaultConsumer;
}

export interface Scenario {
  /** Bytes that one write(2) takes at most. */
  readonly writes?: number;
  readonly run: (open: (options?: RigOptions) => Rig) => Promise<void>;
}

export const OWNER = { device: 2, ioasid: 7, cookie: 0xc0ffee_0000_0001n } as const;
const page = (n: number) => BigInt(n) * 4096n;
const SUCCESS = 0;
const INVALID = 1;

/** A group whose faults are at the pages from `first` on. */
export function pages(cookie: number, first: number, count = 1, device: number = OWNER.device): Uint8Array {
  return groupOf(
    ...Array.from({ length: count }, (_, i) => ({
      dev_id: device,
      flags: i === count - 1 ? LAST : 0,
      addr: page(first + i),
      grpid: cookie,
      cookie,
    })),
  );
}

/** Waits for what happens in another thread. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 5000; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.fail(`never: ${what}`);
}

const addresses = (faults: readonly Fault[]) => faults.map(({ address }) => address);
const pageRange = (first: number, count: number) => Array.from({ length: count }, (_, i) => page(first + i));

/** Takes faults until there are `count`, without waiting in next(). */
async function take(consumer: FaultConsumer, count: number): Promise<Fault[]> {
  const faults: Fault[] = [];
  await until(`${count} faults`, () => faults.push(...consumer.drain()) >= count);
  assert.equal(faults.length, count);
  return faults;
}

/** Groups of one, each answered by a callback, over many laps of the ring. */
async function laps({ file, ring, consumer }: Rig, count: number): Promise<void> {
  const seen: bigint[] = [];
  for (let sent = 0; seen.length < count;) {
    for (; sent < count && sent - seen.length < 100; sent++) file.deliver(pages(1 + (sent % 200), sent));
    consumer.drain((record) => {
      assert.equal(record.ioasid, OWNER.ioasid);
      assert.equal(record.cookie, OWNER.cookie);
      seen.push(record.address);
      record.respond(seen.length % 3 === 0 ? 'invalid' : 'success');
    });
    await Promise.resolve();
  }
  assert.deepEqual(seen, pageRange(0, count));
  const expected = seen.map((_, i) => ({
    cookie: 1 + (i % 200),
    code: (i + 1) % 3 === 0 ? INVALID : SUCCESS,
  }));
  await until('all responses', () => file.responses().length === count);
  assert.deepEqual(file.responses(), expected);
  assert.deepEqual([ring.dropped, ring.refused], [0, 0]);
}

const FLOW: Record<string, Scenario> = {
  'records keep their order over many laps': { run: (open) => laps(open({ slots: 256 }), 3000) },
  'indices begin at 0 again behind 2^32 - 1': {
    run: (open) => laps(open({ slots: 256, start: 2 ** 32 - 700 }), 1500),
  },
  'a write takes 3 bytes': { writes: 3, run: (open) => laps(open({ slots: 256 }), 300) },
  'a write takes one response': { writes: 8, run: (open) => laps(open({ slots: 256 }), 300) },
  'a write takes one and a half': { writes: 12, run: (open) => laps(open({ slots: 256 }), 300) },

  'a full ring holds up the rest, and nothing is lost': {
    async run(open) {
      const { file, ring, consumer } = open({ slots: 64 });
      const waiting = consumer.ready();
      for (let i = 0; i < 500; i++) file.deliver(pages(1 + i, i));
      await waiting;
      await until('a full ring', () => ring.free === 0);
      assert.deepEqual(addresses(await take(consumer, 500)), pageRange(0, 500));
      assert.deepEqual([ring.dropped, ring.refused], [0, 0]);
    },
  },
  'a limit holds up the rest until answers make room': {
    async run(open) {
      const { file, consumer } = open({ slots: 64, limit: 3 });
      for (let i = 0; i < 10; i++) file.deliver(pages(1 + i, i));
      for (let seen = 0; seen < 10;) {
        const faults = consumer.drain();
        assert.ok(faults.length > 0 && faults.length <= 3);
        assert.deepEqual(consumer.drain(), []);
        assert.deepEqual(addresses(faults), pageRange(seen, faults.length));
        seen += faults.length;
        for (const fault of faults) assert.equal(fault.respond('success'), true);
      }
      assert.equal(file.responses().length, 10);
    },
  },
  'a group larger than the ring, and than the first reads, comes in parts and gets one response': {
    async run(open) {
      const { file, consumer } = open({ slots: 64 });
      file.deliver(pages(1, 0));
      file.deliver(pages(2, 1, 700));
      file.deliver(pages(3, 701, 2));
      const seen: bigint[] = [];
      await until('all of them', () => {
        consumer.drain((record) => {
          seen.push(record.address);
          record.respond('success');
        });
        return seen.length === 703;
      });
      assert.deepEqual(seen, pageRange(0, 703));
      assert.deepEqual(
        file.responses().map(({ cookie }) => cookie),
        [1, 2, 3],
      );
    },
  },
  'one fault at a time, waited for': {
    async run(open) {
      const { file, ring, consumer } = open({ slots: 64, limit: 1 });
      for (let i = 0; i < 300; i++) {
        const waiting = consumer.next();
        file.deliver(pages(1, i));
        // Another arrives while there is no room for it.
        if (i % 2 === 0) file.deliver(pages(2, 1000 + i));
        assert.equal((await waiting).address, page(i));
        if (i % 3 === 0) assert.deepEqual(consumer.drain(), []);
        const [fault] = consumer.pending;
        assert.equal(fault.respond('success'), true);
        if (i % 2 === 0) {
          const other = await consumer.next();
          assert.equal(other.address, page(1000 + i));
          assert.equal(other.respond('success'), true);
        }
      }
      assert.deepEqual([ring.dropped, ring.refused, file.responses().length], [0, 0, 450]);
    },
  },
};

const ANSWERS: Record<string, Scenario> = {
  'a response to nothing in the middle of a batch is passed over, and counted': {
    async run(open) {
      const { file, ring, consumer } = open();
      for (let i = 1; i <= 5; i++) file.deliver(pages(i, i));
      const faults = await take(consumer, 5);
      for (const cookie of [2, 3, 5]) file.forget(cookie);
      file.deliver(pages(9, 9));
      faults.push(...(await take(consumer, 1)));
      file.deliver(pages(10, 10));
      consumer.drain((record) => {
        for (const fault of faults) fault.respond('success');
        record.respond('success');
      });
      await until('the responses', () => file.responses().length === 4);
      assert.deepEqual(
        file.responses().map(({ cookie }) => cookie),
        [1, 4, 9, 10],
      );
      assert.equal(ring.refused, 3);
    },
  },
  'a stale response never answers the group that has its cookie now': {
    async run(open) {
      const { file, consumer } = open();
      file.deliver(pages(1, 1));
      const [old] = await take(consumer, 1);
      file.forget(1);
      file.deliver(pages(1, 2));
      const [now] = await take(consumer, 1);
      assert.equal(old.respond('success'), false);
      assert.deepEqual(file.responses(), []);
      assert.equal(now.respond('invalid'), true);
      assert.deepEqual(file.responses(), [{ cookie: 1, code: INVALID }]);
    },
  },
  'faults of nobody are answered invalid; one of them in a group of somebody is taken as his': {
    async run(open) {
      const { file, consumer } = open();
      file.deliver(pages(1, 1, 3, 99));
      const mixed = groupOf(
        { dev_id: 99, addr: page(5), cookie: 2 },
        { dev_id: 2, addr: page(6), cookie: 2, flags: LAST },
      );
      file.deliver(mixed);
      const faults = await take(consumer, 2);
      assert.deepEqual(addresses(faults), pageRange(5, 2));
      assert.deepEqual(file.responses(), [{ cookie: 1, code: INVALID }]);
      for (const fault of faults) assert.equal(fault.ioasid, OWNER.ioasid);
    },
  },
  'after a detach, its groups wait for nothing': {
    async run(open) {
      const { file, ring, pump, consumer } = open();
      file.deliver(pages(1, 1));
      const [fault] = await take(consumer, 1);
      pump.pause();
      pump.emptySlot(OWNER.device, 0);
      file.forget(1);
      pump.resume();
      assert.equal(fault.respond('success'), false);
      file.deliver(pages(1, 2));
      consumer.drain();
      await until('nobody', () => file.responses().length === 1);
      assert.deepEqual([file.responses(), ring.refused], [[{ cookie: 1, code: INVALID }], 0]);
    },
  },
  'a detach while a group larger than the ring is half written': {
    async run(open) {
      const { file, ring, pump, consumer } = open({ slots: 64 });
      file.deliver(pages(1, 0, 700));
      // It comes with the large one, which needs a buffer of more than it.
      file.deliver(pages(2, 700));
      pump.pass();
      await until('a full ring', () => ring.free === 0);
      pump.pause();
      pump.emptySlot(OWNER.device, 0);
      for (const cookie of [1, 2]) file.forget(cookie);
      pump.fillSlot(OWNER.device, 0, 8, 1n);
      pump.resume();
      const left = addresses(consumer.drain());
      assert.deepEqual(left, pageRange(0, 64));
      // Its cookie is another's now, who must not get the answer.
      file.deliver(pages(1, 1000));
      const [fault] = await take(consumer, 1);
      assert.deepEqual([fault.address, fault.ioasid, fault.cookie], [page(1000), 8, 1n]);
      assert.equal(fault.respond('success'), true);
      assert.deepEqual(file.responses(), [{ cookie: 1, code: SUCCESS }]);
    },
  },
  'nothing moves between pause and resume': {
    async run(open) {
      const { file, ring, pump, consumer } = open();
      const waiting = consumer.ready();
      pump.pause();
      file.deliver(pages(1, 1));
      await new Promise((resolve) => setTimeout(resolve, 5));
      assert.equal(ring.available, 0);
      pump.resume();
      await waiting;
      assert.deepEqual(addresses(consumer.drain()), [page(1)]);
    },
  },
};

const code = (name: string) => (error: unknown) => (error as { code?: string }).code === name;

const ENDS: Record<string, Scenario> = {
  'a hang-up ends waits, and is an error event': {
    async run(open) {
      const { file, consumer } = open();
      const events: unknown[] = [];
      consumer.on('error', (error) => events.push(error));
      const [next, ready] = [consumer.next(), consumer.ready()];
      file.hangUp();
      await assert.rejects(next, code('ENODEV'));
      await assert.rejects(ready, code('ENODEV'));
      await until('the event', () => events.length === 1);
      assert.ok(code('ENODEV')(events[0]));
      assert.throws(() => consumer.drain(), code('ENODEV'));
      await assert.rejects(consumer.next(), code('ENODEV'));
    },
  },
  'what was there before the hang-up comes first, as there is room for it': {
    async run(open) {
      const { file, consumer } = open({ slots: 64 });
      const seen: bigint[] = [];
      const first = consumer.next();
      for (let i = 0; i < 200; i++) file.deliver(pages(1 + i, i));
      file.hangUp();
      seen.push((await first).address);
      while (seen.length < 200) {
        seen.push((await consumer.next()).address);
        if (seen.length % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      }
      assert.deepEqual(seen, pageRange(0, 200));
      await assert.rejects(consumer.next(), code('ENODEV'));
    },
  },
  'a read that fails ends it, with what was read before': {
    async run(open) {
      const { file, consumer } = open();
      const waiting = consumer.ready();
      file.deliver(pages(1, 1));
      file.fail(errno.EIO);
      await waiting;
      assert.deepEqual(addresses(await take(consumer, 1)), [page(1)]);
      await assert.rejects(consumer.next(), code('EIO'));
      assert.throws(() => consumer.drain(), code('EIO'));
    },
  },
  'a part of a record is an error': {
    async run(open) {
      const { file, consumer } = open();
      file.deliver(pages(1, 1).subarray(0, 30));
      await assert.rejects(consumer.next(), code('EIO'));
    },
  },
};

export const SCENARIOS: Readonly<Record<string, Scenario>> = { ...FLOW, ...ANSWERS, ...ENDS };
