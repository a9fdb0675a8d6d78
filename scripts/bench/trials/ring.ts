/** Trial: faults of a producer in C, through a ring. Arguments: faults, p50 or p99; milliseconds. */
import type { FaultConsumer, FaultView } from '../../../lib';
import { report, reportUnavailable } from './measure';
import { Meter, produceIntoRing, SLICE } from './producer';

/** Latencies that are taken at least. */
const LEAST = 100;
/** Not counted: the JIT has not seen the path often enough. */
const COLD = 2000;

/** As fast as they come. */
async function faults(consumer: FaultConsumer): Promise<void> {
  const meter = new Meter(SLICE);
  const visit = (record: FaultView) => {
    meter.see(record.addressLow);
    record.respond('success');
  };
  for (;;) {
    await consumer.ready();
    consumer.drain(visit);
  }
}

/** Nanoseconds from publication to the callback, of a consumer that slept. */
async function wakeups(consumer: FaultConsumer, at: number, milliseconds: number): Promise<number> {
  const latencies: number[] = [];
  const visit = (record: FaultView) => {
    latencies.push(Number(process.hrtime.bigint() - record.timestamp));
    record.respond('success');
  };
  const start = performance.now();
  while (performance.now() - start < 4 * milliseconds || latencies.length < COLD + LEAST) {
    await consumer.ready();
    consumer.drain(visit);
  }
  const sorted = latencies.slice(COLD).sort((a, b) => a - b);
  return sorted[Math.trunc(at * sorted.length)];
}

async function main(): Promise<void> {
  const [what, milliseconds] = process.argv.slice(2);
  const consumer = produceIntoRing(what === 'faults' ? 'fast' : 'slow');
  if ('unavailable' in consumer) return reportUnavailable(consumer.unavailable);
  if (what === 'faults') return faults(consumer);
  report(await wakeups(consumer, what === 'p99' ? 0.99 : 0.5, Number(milliseconds)));
  process.exit(0);
}

void main();
