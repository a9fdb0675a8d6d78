// Faults that a producer in C publishes straight into a ring (the bench's producer). Arguments: faults.
import type { FaultView } from '../../lib';
import { produceIntoRing } from '../bench/trials/producer';
import { Progress } from './progress';

const PAGES_LOW = 2 ** 20;
const PAGE_SHIFT = 12;

async function main(): Promise<void> {
  const total = Number(process.argv[2]);
  const consumer = produceIntoRing('fast');
  if ('unavailable' in consumer) throw new Error(consumer.unavailable);
  const progress = new Progress('ring', total);
  let seen = 0;
  const visit = (record: FaultView) => {
    const number = record.addressHigh * PAGES_LOW + (record.addressLow >>> PAGE_SHIFT);
    if (number !== seen) throw new Error(`fault ${number}, not ${seen}`);
    record.respond('success');
    seen++;
    progress.at(seen);
    // The producer has no end: it is left behind.
    if (seen === total) {
      progress.report({});
      process.exit(0);
    }
  };
  for (;;) {
    await consumer.ready();
    consumer.drain(visit);
  }
}

void main();
