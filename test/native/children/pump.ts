/** Runs a scenario of test/rings against the addon's pump. test/native/fault-file.c is preloaded: see there. */
import { closeSync } from 'node:fs';
import { FaultConsumer } from '../../../lib/fault-consumer';
import { LinuxKernel } from '../../../lib/linux/kernel';
import { FAULT_SOURCE_BYTES, RING_EVENTS, RING_FAULTS, ringBytes } from '../../../lib/rings/layout';
import type { Pump } from '../../../lib/rings/pump';
import { Ring } from '../../../lib/rings/ring';
import { iommu_hwpt_page_response } from '../../../lib/uapi';
import type { FaultFile, ResponseRecord } from '../../rings/fault-file';
import { ANSWERS } from '../../rings/answers';
import { histories } from '../../rings/histories';
import { HOSTILE } from '../../rings/hostile';
import { OWNER, SCENARIOS, type Rig, type RigOptions } from '../../rings/scenarios';

const [FILE, DEVICE] = [100, 101];

class BareConsumer extends FaultConsumer {
  static over(ring: Ring, pump: Pump): FaultConsumer {
    return new BareConsumer(ring, pump);
  }
}

class PreloadedFile implements FaultFile {
  readonly #taken: ResponseRecord[] = [];
  constructor(private readonly kernel: LinuxKernel) {}

  deliver(bytes: Uint8Array): void {
    const result = this.kernel.write(DEVICE, bytes);
    if (result !== bytes.length) throw new Error(`write: ${result}`);
  }
  forget(cookie: number): void {
    this.deliver(new Uint8Array(Uint32Array.of(cookie).buffer));
  }
  fail(error: number): void {
    this.deliver(new Uint8Array(Uint16Array.of(error).buffer));
  }
  hangUp(): void {
    closeSync(DEVICE);
  }
  responses(): ResponseRecord[] {
    const bytes = new Uint8Array(iommu_hwpt_page_response.size);
    while (this.kernel.poll(DEVICE, 1) === 1 && this.kernel.read(DEVICE, bytes) === bytes.length)
      this.#taken.push(iommu_hwpt_page_response.decode(bytes));
    return [...this.#taken];
  }
}

function open(kernel: LinuxKernel, { slots = 256, limit = Infinity, start = 0, events }: RigOptions): Rig {
  const shape = {
    kind: events === undefined ? RING_FAULTS : RING_EVENTS,
    sourceBytes: events ?? FAULT_SOURCE_BYTES,
    records: slots,
    responses: events === undefined ? slots : 0,
  } as const;
  const memory = kernel.allocate(ringBytes(shape), { memfd: true });
  if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
  const ring = Ring.create(memory.bytes.buffer, shape, start);
  const pump = kernel.rings.pump(FILE, memory, { limit });
  if (typeof pump === 'number') throw new Error(`pump: ${pump}`);
  pump.fillSlot(OWNER.device, 0, OWNER.ioasid, OWNER.cookie);
  return { file: new PreloadedFile(kernel), ring, pump, consumer: BareConsumer.over(ring, pump) };
}

async function main(): Promise<void> {
  const { run } = { ...SCENARIOS, ...HOSTILE, ...ANSWERS, ...histories() }[process.argv[2]];
  const kernel = new LinuxKernel();
  const rigs: Rig[] = [];
  await run((options = {}) => {
    rigs.push(open(kernel, options));
    return rigs[0];
  });
  for (const { consumer } of rigs) consumer.close();
}

void main();
