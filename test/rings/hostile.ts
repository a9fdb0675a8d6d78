/** More for both pumps: consumers that write nonsense where they may write, and events. */
import assert from 'node:assert/strict';
import { IOMMU_VEVENTQ_FLAG_LOST_EVENTS as LOST_EVENTS, errno } from '../../lib/uapi';
import { ring as field } from '../../lib/rings/layout';
import { OWNER, pages, until, type Rig, type Scenario } from './scenarios';

const EIO = (error: unknown) => (error as { code?: string }).code === 'EIO';
const HEADER = 8;

/** Indices that are off by more than there are slots, before and behind. */
const NONSENSE = [1, -1, 2 ** 31, -1000, 1000];

function spoilTail({ ring }: Rig, by: number): void {
  const off = by > 0 ? by : by - ring.capacity;
  Atomics.store(ring.words, field.tail >> 2, ring.head + off);
}

function spoilResponses({ ring }: Rig, by: number): void {
  const off = by > 0 ? ring.shape.responses + by : by;
  Atomics.store(ring.words, field.responseHead >> 2, ring.words[field.responseTail >> 2] + off);
}

/** An event whose bytes say which it is; the header of lost ones is alone. */
function event(sequence: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(sequence + 1, HEADER);
  new DataView(bytes.buffer).setUint32(0, length === HEADER ? LOST_EVENTS : 0, true);
  new DataView(bytes.buffer).setUint32(4, sequence, true);
  return bytes;
}

/** mulberry32: whole numbers below a limit. */
function randomizer(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export const HOSTILE: Record<string, Scenario> = {
  ...Object.fromEntries(
    NONSENSE.flatMap((by): [string, Scenario][] => [
      [
        `the index of consumed records is ${by} off, while somebody waits`,
        {
          async run(open) {
            const rig = open({ slots: 64 });
            const waiting = rig.consumer.next();
            spoilTail(rig, by);
            rig.file.deliver(pages(1, 1));
            await assert.rejects(waiting, EIO);
            assert.equal(rig.ring.error, errno.EIO);
          },
        },
      ],
      [
        `the index of consumed records is ${by} off, and is looked at`,
        {
          async run(open) {
            const rig = open({ slots: 64 });
            rig.file.deliver(pages(1, 1));
            spoilTail(rig, by);
            assert.throws(() => rig.consumer.drain(), EIO);
            assert.throws(() => rig.consumer.drain(() => assert.fail('there is none')), EIO);
            await assert.rejects(rig.consumer.next(), EIO);
            await assert.rejects(rig.consumer.ready(), EIO);
            assert.equal(rig.pump.pass(), -errno.EIO);
          },
        },
      ],
      [
        `the index of responses is ${by} off`,
        {
          async run(open) {
            const rig = open({ slots: 64 });
            rig.file.deliver(pages(1, 1));
            const [fault] = rig.consumer.drain();
            spoilResponses(rig, by);
            assert.equal(rig.pump.flush(), -errno.EIO);
            assert.throws(() => fault.respond('success'), EIO);
            await assert.rejects(rig.consumer.next(), EIO);
            assert.deepEqual(rig.file.responses(), []);
          },
        },
      ],
    ]),
  ),

  'a full ring, whose consumer then takes more than there is': {
    async run(open) {
      const rig = open({ slots: 64 });
      const waiting = rig.consumer.ready();
      for (let i = 0; i < 100; i++) rig.file.deliver(pages(1 + i, i));
      await waiting;
      await until('a full ring', () => rig.ring.free === 0);
      rig.ring.consume(rig.ring.head + 1);
      rig.pump.kick();
      rig.pump.pass();
      assert.equal(rig.ring.error, errno.EIO);
    },
  },

  'random words where indices were never crash or hang a pump': {
    async run(open) {
      const seed = Number(process.env['RING_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
      const below = randomizer(seed);
      const rig = open({ slots: 64 });
      const { file, ring, pump, consumer } = rig;
      for (let round = 0; ring.error === 0 && round < 2000; round++) {
        file.deliver(pages(1 + (round % 50), round));
        const at = (0x40 + 4 * below(0x60)) >> 2;
        if (round % 4 === 0 && at !== field.error >> 2) Atomics.store(ring.words, at, below(2 ** 32));
        try {
          consumer.drain((record) => record.respond('success'));
        } catch (error) {
          assert.ok(EIO(error), `seed ${seed}: ${String(error)}`);
        }
        assert.ok(pump.pass() <= 1);
        assert.equal(pump.isCurrent(0xffff_ffff, 0), false);
      }
      assert.equal(ring.error, errno.EIO, `seed ${seed}`);
      await assert.rejects(consumer.next(), EIO);
      pump.emptySlot(OWNER.device, 0);
    },
  },

  'events of more than 56 bytes, and headers of lost ones': {
    async run(open) {
      const LENGTH = HEADER + 60;
      const { file, ring, pump } = open({ slots: 8, events: LENGTH });
      const lengths = Array.from({ length: 30 }, (_, i) => (i % 5 === 3 ? HEADER : LENGTH));
      for (const [i, length] of lengths.entries()) file.deliver(event(i, length));
      assert.equal(ring.recordWords, 32);
      const bytes = new Uint8Array(ring.words.buffer);
      let seen = 0;
      await until('all events', () => {
        // 1: there are more than the ring holds.
        assert.equal(pump.pass(), lengths.length - seen >= ring.capacity ? 1 : 0);
        for (; ring.available > 0; ring.consume(ring.tail + 1), seen++) {
          const at = 4 * ring.slot(ring.tail);
          const expected = new Uint8Array(120);
          expected.set(event(seen, lengths[seen]));
          assert.deepEqual(bytes.slice(at, at + 120), expected);
        }
        return seen === lengths.length;
      });
    },
  },
};
