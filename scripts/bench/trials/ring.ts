/** Trial: faults of a producer in C, through a ring. Arguments: faults, p50 or p99; milliseconds. */
import type { FaultConsumer, FaultView } from '../../../lib';
import { report, reportUnavailable } from './measure';
import { Latencies, Meter, produceIntoRing, SLICE } from './producer';

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
async function wakeups(consumer: FaultConsumer, at: string, milliseconds: number): Promise<number> {
  const latencies = new Latencies(milliseconds);
  const visit = (record: FaultView) => {
    latencies.add(Number(process.hrtime.bigint() - record.timestamp));
    record.respond('success');
  };
  while (!latencies.done) {
    await consumer.ready();
    consumer.drain(visit);
  }
  return latencies.at(at);
}

async function main(): Promise<void> {
  const [what, milliseconds] = process.argv.slice(2);
  const consumer = produceIntoRing(what === 'faults' ? 'fast' : 'slow');
  if ('unavailable' in consumer) return reportUnavailable(consumer.unavailable);
  if (what === 'faults') return faults(consumer);
  report(await wakeups(consumer, what, Number(milliseconds)));
  process.exit(0);
}

void main();
