/** More for both pumps: answers that come at odd moments. */
import assert from 'node:assert/strict';
import type { FaultView } from '../../lib/fault-view';
import { errno } from '../../lib/uapi';
import { ring as field } from '../../lib/rings/layout';
import { OWNER, pages, until, type Rig, type Scenario } from './scenarios';

const OTHER = OWNER.device + 1;
const SUCCESS = 0;

/** Closes the consumer at the first of three faults, behind what `before` does with it. */
async function closeFirst(
  { file, ring, pump, consumer }: Rig,
  before: (record: FaultView) => void,
  heard: readonly object[],
): Promise<void> {
  for (let i = 0; i < 3; i++) file.deliver(pages(1 + i, i));
  pump.pass();
  const visited = consumer.drain((record) => {
    before(record);
    consumer.close();
    // Whoever has the consumer's side next writes there.
    ring.words[ring.responseSlot(0)] = 777;
    if (heard.length === 0) record.respond('success');
  });
  assert.equal(visited, 1);
  assert.equal(ring.words[ring.responseSlot(0)], 777);
  assert.deepEqual(file.responses(), heard);
}

export const ANSWERS: Record<string, Scenario> = {
  'closed in its callback, behind an answer, a consumer writes nothing more': {
    run: (open) => closeFirst(open(), (record) => record.respond('success'), [{ cookie: 1, code: SUCCESS }]),
  },
  'answered behind close(), likewise': {
    run: (open) => closeFirst(open(), () => {}, []),
  },
  'closed in its callback while there is no room for the answer': {
    async run(open) {
      const { file, pump, consumer } = open({ slots: 8 });
      file.deliver(pages(1, 1));
      pump.pass();
      const [kept] = consumer.drain();
      for (let i = 0; i < 8; i++) file.deliver(pages(2 + i, 2 + i));
      pump.pass();
      let count = 0;
      consumer.drain((record) => {
        if (++count === 1) kept.respond('success');
        record.respond('success');
        if (count === 8) consumer.close();
      });
      assert.deepEqual(
        file.responses().map(({ cookie }) => cookie),
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
      );
    },
  },
  'more answers for nobody than one write has room for do not hold up the one behind them': {
    async run(open) {
      const NOBODY = 1100;
      const { file, ring, pump, consumer } = open({ slots: 4096 });
      pump.fillSlot(OTHER, 0, 8, 5n);
      for (let i = 0; i < NOBODY; i++) file.deliver(pages(1 + i, i));
      file.deliver(pages(NOBODY + 1, NOBODY, 1, OTHER));
      pump.pass();
      let count = 0;
      consumer.drain((record) => {
        if (count++ === 0) {
          pump.pause();
          pump.emptySlot(OWNER.device, 0);
          pump.resume();
        }
        record.respond('success');
      });
      assert.deepEqual(file.responses(), [{ cookie: NOBODY + 1, code: SUCCESS }]);
      assert.deepEqual([count, ring.refused, ring.responses], [NOBODY + 1, NOBODY, 0]);
    },
  },
  'where the index of answers taken is spoilt, all are heard or the pump ends': {
    async run(open) {
      const COUNT = 200;
      const { file, ring, pump, consumer } = open({ slots: 256, start: COUNT });
      for (let i = 0; i < COUNT; i++) file.deliver(pages(1 + i, i));
      pump.pass();
      Atomics.store(ring.words, field.responseTail >> 2, ring.head + 5);
      try {
        assert.equal(
          consumer.drain((record) => record.respond('success')),
          COUNT,
        );
        await until('all answers', () => file.responses().length === COUNT);
        assert.equal(ring.refused, 0);
      } catch (error) {
        assert.deepEqual([(error as { code?: string }).code, ring.error], ['EIO', errno.EIO]);
      }
    },
  },
};
