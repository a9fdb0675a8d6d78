/**
 * Peer of trials/ring.ts: a callback of Node's event loop for the same doorbell, with nothing of this package's behind it. What
 * a consumer in JavaScript cannot be faster than. Arguments: p50 or p99; milliseconds.
 */
import { FAULT_RECORD_BYTES, faultRecord, TIMESTAMP_BYTES } from '../../../lib/rings/layout';
import { report, reportUnavailable } from './measure';
import { Latencies, produceForLoop } from './producer';

const COOKIE = faultRecord.groupCookie >> 2;
const GENERATION = faultRecord.generation >> 2;
const TIMESTAMP = (FAULT_RECORD_BYTES - TIMESTAMP_BYTES) >> 3;

function main(): void {
  const [at, milliseconds] = process.argv.slice(2);
  const producer = produceForLoop();
  if ('unavailable' in producer) return reportUnavailable(producer.unavailable);
  const { ring, listen } = producer;
  const { words } = ring;
  const wide = new BigUint64Array(words.buffer);
  const latencies = new Latencies(Number(milliseconds));
  const watch = listen(() => {
    const now = process.hrtime.bigint();
    do
      for (let { tail } = ring; ring.available > 0; tail = ring.tail) {
        const slot = ring.slot(tail);
        latencies.add(Number(now - wide[(slot >> 1) + TIMESTAMP]));
        ring.respond(words[slot + COOKIE], 0, words[slot + GENERATION]);
        ring.publishResponses();
        ring.consume(tail + 1);
      }
    while (!ring.sleep());
    if (!latencies.done) return;
    report(latencies.at(at));
    process.exit(0);
  });
  if (typeof watch === 'number') throw new Error(`watch: ${watch}`);
  ring.sleep();
}

main();
