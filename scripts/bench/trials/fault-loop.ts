/** Trial: a device touches a page, the fault is taken with `for await` and answered. Arguments: milliseconds. */
import { Machine } from '../../../lib/sim';
import { CALLS, FaultingEngine, IOVAS } from './faulting-engine';
import { measure, report } from './measure';

async function main(): Promise<void> {
  const engine = new FaultingEngine(new Machine());
  const faults = engine.queue[Symbol.asyncIterator]();
  const unmapAll = () => {
    if (engine.space.mappings.length > 0) engine.space.unmapAll();
  };
  const value = await measure({ calls: CALLS, prepare: unmapAll }, async () => {
    for (const iova of IOVAS) {
      engine.start(iova);
      const { value: fault } = await faults.next();
      if (fault?.address !== iova) throw new Error(`a fault at ${String(fault?.address)}, not ${iova}`);
      engine.map(fault.address);
      if (!fault.respond('success')) throw new Error('nobody waited for the response');
      engine.finish();
    }
  });
  engine.iommu.close();
  report(value);
}

void main();
