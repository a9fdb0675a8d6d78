/** A ring, the pump in JavaScript, a scripted file behind it and a consumer before it. */
import { FaultConsumer } from '../../lib/fault-consumer';
import { FAULT_SOURCE_BYTES, RING_EVENTS, RING_FAULTS, ringBytes } from '../../lib/rings/layout';
import { Ring } from '../../lib/rings/ring';
import { SoftwarePump } from '../../lib/rings/software-pump';
import { ScriptedFaultFile } from './fault-file';
import { OWNER, type Rig, type RigOptions } from './scenarios';

const FD = 40;

/** FaultConsumer's constructor is for FaultQueue, which has a kernel below it. */
class BareConsumer extends FaultConsumer {
  static over(ring: Ring, pump: SoftwarePump): FaultConsumer {
    return new BareConsumer(ring, pump);
  }
}

export interface SoftwareRig extends Rig {
  readonly file: ScriptedFaultFile;
}

/** `writes`: bytes that one write(2) takes at most. */
export function openSoftware(
  writes: number | undefined,
  { slots = 256, limit = Infinity, start = 0, events }: RigOptions = {},
): SoftwareRig {
  const file = new ScriptedFaultFile(writes);
  const shape = {
    kind: events === undefined ? RING_FAULTS : RING_EVENTS,
    sourceBytes: events ?? FAULT_SOURCE_BYTES,
    records: slots,
    responses: events === undefined ? slots : 0,
  } as const;
  const ring = Ring.create(new SharedArrayBuffer(ringBytes(shape)), shape, start);
  const pump = new SoftwarePump(file, FD, ring, { limit });
  pump.fillSlot(OWNER.device, 0, OWNER.ioasid, OWNER.cookie);
  return { file, ring, pump, consumer: BareConsumer.over(ring, pump) };
}
