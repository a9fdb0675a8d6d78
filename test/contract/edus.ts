/** The guest's edu devices behind root ports, and a simulated machine that has them too. */
import type { Kernel } from '../../lib/kernel';
import { Edu, Machine } from '../../lib/sim';
import { backend, EDU, kernel } from './support';

/** Alone on its bus. */
export const SINGLE = '0000:01:00.0';
/** Two functions of one device, in one IOMMU group. */
export const PAIR = ['0000:02:00.0', '0000:02:00.1'] as const;
const PAIR_GROUP = 9;

/** A kernel with EDU, SINGLE and PAIR. */
export function kernelWithBuses(): Kernel {
  if (backend === 'linux') return kernel();
  const machine = new Machine({
    devices: {
      [EDU]: new Edu(),
      [SINGLE]: new Edu(),
      [PAIR[0]]: { device: new Edu({ multifunction: true }), group: PAIR_GROUP },
      [PAIR[1]]: { device: new Edu(), group: PAIR_GROUP },
    },
  });
  return machine.process();
}
