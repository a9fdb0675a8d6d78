import { setImmediate as turn } from 'node:timers/promises';
import { EFD_NONBLOCK } from '../../lib/kernel';
import { LinuxKernel } from '../../lib/linux/kernel';
import { FAULT_SOURCE_BYTES, RING_FAULTS, ringBytes } from '../../lib/rings/layout';
import { Ring } from '../../lib/rings/ring';
import { describeLinux } from './has-addon';

describeLinux("the addon's pump", () => {
  function open() {
    const kernel = LinuxKernel.load();
    if ('reason' in kernel) throw new Error(kernel.reason);
    const shape = {
      kind: RING_FAULTS,
      sourceBytes: FAULT_SOURCE_BYTES,
      records: 16,
      responses: 16,
    } as const;
    const memory = kernel.allocate(ringBytes(shape), { memfd: true });
    if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
    Ring.create(memory.bytes.buffer, shape);
    // Nothing ever comes from it.
    const file = kernel.eventfd(0, EFD_NONBLOCK);
    const pump = kernel.rings.pump(file, memory, { limit: Infinity });
    if (typeof pump === 'number') throw new Error(`pump: ${pump}`);
    const close = () => {
      pump.close();
      kernel.close(file);
      memory.free();
    };
    return { kernel, pump, close };
  }

  // A queue that had been waited on, and was then shared, went on reading its doorbell: a worker was not woken.
  test('who has lent the consumer side takes no ring of the doorbell', async () => {
    const { kernel, pump, close } = open();
    let woken = 0;
    expect(pump.start(() => woken++)).toBe(0);
    pump.stop();
    const lent = pump.lend();
    if (lent === undefined || typeof lent === 'number') throw new Error(`lend: ${lent}`);
    const one = new Uint8Array(BigUint64Array.of(1n).buffer);
    expect(kernel.write(lent.doorbell, one)).toBe(8);
    for (let i = 0; i < 20; i++) await turn();
    expect(kernel.read(lent.doorbell, new Uint8Array(8))).toBe(8);
    expect(woken).toBe(0);
    // Taken back, it is listened to again.
    expect(pump.start(() => woken++)).toBe(0);
    kernel.write(lent.doorbell, one);
    while (woken === 0) await turn();
    close();
  });
});
