// Faults through the addon's pump. feeder.c runs this, with the other end of its socket as descriptor 3. Arguments: faults.
import { FaultConsumer, IommuError } from '../../lib';
import type { FaultView } from '../../lib';
import { LinuxKernel } from '../../lib/linux/kernel';
import { FAULT_SOURCE_BYTES, RING_FAULTS, ringBytes } from '../../lib/rings/layout';
import { Ring } from '../../lib/rings/ring';
import type { Pump } from '../../lib/rings/pump';
import { Progress } from './progress';

const FEEDER = 3;
const SLOTS = 4096;
const DEVICE = 2;
/** Every fifth number gets the answer 'invalid', and so does its group if it is its first. */
const INVALID = 5;
const PAGES_LOW = 2 ** 20;
const PAGE_SHIFT = 12;

/** FaultConsumer's constructor is for FaultQueue, which has a kernel below it. */
class SoakConsumer extends FaultConsumer {
  static over(ring: Ring, pump: Pump): FaultConsumer {
    return new SoakConsumer(ring, pump);
  }
}

async function main(): Promise<void> {
  const total = Number(process.argv[2]);
  const kernel = new LinuxKernel();
  const shape = {
    kind: RING_FAULTS,
    sourceBytes: FAULT_SOURCE_BYTES,
    records: SLOTS,
    responses: SLOTS,
  } as const;
  const memory = kernel.allocate(ringBytes(shape), { memfd: true });
  if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
  const ring = Ring.create(memory.bytes.buffer, shape);
  const pump = kernel.rings.pump(FEEDER, memory, { limit: Infinity });
  if (typeof pump === 'number') throw new Error(`pump: ${pump}`);
  pump.fillSlot(DEVICE, 0, 1, 0x1234_5678_9abcn);
  const consumer = SoakConsumer.over(ring, pump);
  const progress = new Progress('pump', total);
  let seen = 0;
  let first = true;
  const visit = (record: FaultView) => {
    const number = record.addressHigh * PAGES_LOW + (record.addressLow >>> PAGE_SHIFT);
    if (number !== seen) throw new Error(`fault ${number}, not ${seen}`);
    record.respond(first && number % INVALID === 0 ? 'invalid' : 'success');
    first = record.last;
    seen++;
  };
  try {
    for (;;) {
      await consumer.ready();
      consumer.drain(visit);
      progress.at(seen);
    }
  } catch (error) {
    // The feeder has all its answers, and went.
    if (!(error instanceof IommuError) || error.code !== 'ENODEV') throw error;
  }
  const { dropped, refused, wakeups } = ring;
  if (seen !== total || dropped !== 0 || refused !== 0)
    throw new Error(`${seen} of ${total} faults, ${dropped} dropped, ${refused} refused`);
  progress.report({ dropped, refused, wakeups });
  consumer.close();
}

void main();
