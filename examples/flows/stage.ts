/** What the flows have in common: where they run, and how they say what they do. */
import { Iommu } from 'iommufd';
import { ChannelEngine, DmaEngine, Edu, Machine } from 'iommufd/sim';

export interface Stage {
  readonly iommu: Iommu;
  /** The simulated machine, where it is one. */
  readonly machine: Machine | undefined;
  /** Says a step of the flow as the RFC has it. */
  readonly step: (text: string) => void;
  /** Says what came of it. Throws if it is not so. */
  readonly check: (holds: boolean, text: string) => void;
}

export interface Flow {
  /** Section of the RFC. */
  readonly section: string;
  readonly title: string;
  run(stage: Stage): Promise<void> | void;
}

export const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** 48 bits of address, as the devices of the virtual machine have: an edu's own default is 28. */
const DMA_MASK = 2n ** 48n - 1n;

/** Linux where there is a /dev/iommu; else a machine with two devices of each kind, and a parent of mediated ones. */
export function openIommu(): Pick<Stage, 'iommu' | 'machine'> {
  const iommu = Iommu.open();
  if (iommu.backend === 'linux') return { iommu, machine: undefined };
  iommu.close();
  const machine = new Machine({
    selftest: true,
    devices: {
      '0000:00:04.0': new Edu({ dmaMask: DMA_MASK }),
      '0000:00:05.0': new Edu({ dmaMask: DMA_MASK }),
      '0000:00:06.0': new DmaEngine(),
      '0000:00:07.0': new DmaEngine(),
      '0000:00:08.0': { device: new ChannelEngine(), driver: 'channel-engine' },
    },
  });
  return { iommu: Iommu.open({ backend: machine }), machine };
}

/** Runs a flow, on an Iommu of its own. */
export async function runFlow(flow: Flow, print: (line: string) => void): Promise<void> {
  const opened = openIommu();
  using iommu = opened.iommu;
  print(`${flow.section} ${flow.title} (${iommu.backend})`);
  let number = 0;
  await flow.run({
    ...opened,
    step: (text) => print(`  ${++number}. ${text}`),
    check(holds, text) {
      if (!holds) throw new Error(`flow ${flow.section}, step ${number}: it does not hold that ${text}`);
      print(`     - ${text}`);
    },
  });
}
