/** The guest's edu devices behind root ports, and a simulated machine that has them too. */
import type { Kernel } from '../../lib/kernel';
import { Edu, Machine, PciBridge } from '../../lib/sim';
import { backend, EDU, kernel } from './support';

/** Alone on its bus. */
export const SINGLE = '0000:01:00.0';
/** Two functions of one device, in one IOMMU group. */
export const PAIR = ['0000:02:00.0', '0000:02:00.1'] as const;
/** The root ports they are behind. */
export const PORTS = ['0000:00:07.0', '0000:00:08.0'] as const;

/** A kernel with EDU, SINGLE and PAIR. */
export function kernelWithBuses(): Kernel {
  if (backend === 'linux') return kernel();
  const machine = new Machine({
    devices: {
      [EDU]: new Edu(),
      [PORTS[0]]: new PciBridge({ kind: 'root-port', bus: 1 }),
      [PORTS[1]]: new PciBridge({ kind: 'root-port', bus: 2 }),
      [SINGLE]: new Edu(),
      [PAIR[0]]: new Edu({ multifunction: true }),
      [PAIR[1]]: new Edu(),
    },
  });
  return machine.process();
}
