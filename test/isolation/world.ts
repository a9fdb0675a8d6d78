/** A machine that histories happen on, one after the other; each leaves it as it was. */
import { ChannelEngine, Machine } from '../../lib/sim';
import { FunctionDevice, MediatedDevice, type TestDevice } from './devices';
import { Prober } from './prober';

const FUNCTIONS = ['0000:00:06.0', '0000:00:07.0', '0000:00:08.0'];
const PARENT = '0000:00:09.0';
/** Types of mediated devices, and the routing slots that such a device can fill. */
const MDEVS: readonly (readonly [string, readonly (number | undefined)[]])[] = [
  ['software', [undefined]],
  ['channel', [undefined]],
  ['pasid', [undefined, 1, 2]],
  ['pasid', [undefined, 1, 2]],
  // Its vPASIDs get pPASIDs of the space that all requester IDs share.
  ['enqcmd', [undefined, 1, 2]],
];

export class World {
  readonly devices = new Map<string, TestDevice>();
  /** The slots of devices that are all software. */
  readonly software = new Set<string>();
  readonly machine: Machine;

  /** `secondStage`: of tables, where Linux would choose first-stage ones. */
  constructor(readonly secondStage: boolean) {
    const probers = new Map(FUNCTIONS.map((bdf) => [bdf, new Prober()]));
    const parent = { device: new ChannelEngine(), driver: 'channel-engine' };
    this.machine = new Machine({
      devices: { ...Object.fromEntries(probers), [PARENT]: parent },
      memory: 2 ** 24,
      manual: true,
      ...(secondStage && { iommu: { capabilities: { FSTS: 0 } } }),
    });
    for (const [bdf, prober] of probers) this.devices.set(bdf, new FunctionDevice(bdf, prober));
    MDEVS.forEach(([type, pasids], i) => {
      const uuid = `00000000-0000-4000-8000-00000000000${i}`;
      if (type === 'software') this.software.add(`${uuid} rid`);
      this.devices.set(
        uuid,
        new MediatedDevice(uuid, PARENT, `channel-engine-${type}`, this.machine, type === 'software', pasids),
      );
    });
  }
}
