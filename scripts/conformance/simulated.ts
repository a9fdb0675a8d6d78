/** A simulated machine like the guest: the same devices and registers, so that differences are the kernel's. */
import type { Kernel } from '../../lib/open-kernel';
import { Machine, type DeviceOptions } from '../../lib/sim';
import { Edu } from '../../lib/sim/devices/edu';
import * as pci from '../../lib/sim/devices/pci-registers';
import { CAPABILITIES } from '../../lib/sim/kernel/credentials';
import { decodeCap, decodeEcap } from '../../lib/sim/vtd';
import type { IommuChoice } from './options';

/** A kernel, and how to wait until what it does in the background is done. */
export interface Opened {
  readonly kernel: Kernel;
  readonly settle: () => void;
}

/** CAP_REG and ECAP_REG of QEMU's VT-d unit as scripts/vm starts it, as [low, high]. */
const CAP = [0x2226_0206, 0x00d2_008c] as const;
const ECAP = [0x80f0_0f4e, 0x0000_4800] as const;
/** QEMU's `aw-bits`. */
const HAW = 39;
/** The IOMMU group of two functions of one device. */
const PAIR = 9;

interface Place {
  /** What firmware and kernel leave in configuration space: the address of BAR 0, the interrupt line. */
  readonly bar: number;
  readonly line: number;
  readonly multifunction?: boolean;
  readonly group?: number;
}

/** The guest's edu devices (scripts/vm/qemu.ts). */
const EDUS: Readonly<Record<string, Place>> = {
  '0000:00:04.0': { bar: 0xfe40_0000, line: 0x0a },
  '0000:01:00.0': { bar: 0xfe20_0000, line: 0x0b },
  '0000:02:00.0': { bar: 0xfe00_0000, line: 0x0a, multifunction: true, group: PAIR },
  '0000:02:00.1': { bar: 0xfe10_0000, line: 0x0a, group: PAIR },
};
const COMMAND = 0x0103;

/** As in QEMU, whose edu keeps its registers over a reset. */
class KeepingEdu extends Edu {
  protected override onReset(): void {}
}

function edu({ multifunction = false, group }: Place, iommu: IommuChoice): DeviceOptions {
  const device = new KeepingEdu({ dmaMask: (1n << 48n) - 1n, multifunction });
  // It is the IOMMU that groups follow from.
  return group === undefined || iommu === 'none' ? { device } : { device, group };
}

/** What a machine is started with, the simulated one as the guest. */
export interface Setup {
  readonly iommu?: IommuChoice;
  /** Bytes that the program may lock, without CAP_IPC_LOCK; undefined for as much as it likes. */
  readonly memlock?: number | undefined;
}

export function openSimulated({ iommu = 'intel', memlock }: Setup = {}): Opened {
  const vtd = { capabilities: { ...decodeCap(CAP), ...decodeEcap(ECAP), HAW } };
  const machine = new Machine({
    iommu: iommu === 'none' ? iommu : vtd,
    selftest: true,
    powerManagement: false,
    devices: Object.fromEntries(Object.entries(EDUS).map(([bdf, place]) => [bdf, edu(place, iommu)])),
  });
  for (const [bdf, { bar, line }] of Object.entries(EDUS)) {
    const config = machine.device(bdf)?.config;
    config?.write(pci.COMMAND, 2, COMMAND);
    config?.write(pci.BASE_ADDRESS_REGISTERS, 4, bar);
    config?.write(pci.INTERRUPT_LINE, 1, line);
  }
  // As root with that one capability out of the bounding set.
  const capabilities = CAPABILITIES.filter((each) => each !== 'CAP_IPC_LOCK');
  const limited = (bytes: number) => machine.createProcess({ uid: 0, capabilities, memlock: bytes });
  const kernel = memlock === undefined ? machine.process() : limited(memlock);
  return { kernel, settle: () => void machine.idle() };
}
