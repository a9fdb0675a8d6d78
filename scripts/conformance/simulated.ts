/** A simulated machine like the guest: the same devices and registers, so that differences are the kernel's. */
import { openKernel, type Kernel } from '../../lib/open-kernel';
import { Machine } from '../../lib/sim';
import { Edu } from '../../lib/sim/devices/edu';
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
const EDU = '0000:00:04.0';
/** What the guest's firmware and kernel leave in edu's configuration space: offset, bytes, value. */
const FIRMWARE = [
  [0x04, 2, 0x0103],
  [0x10, 4, 0xfea0_0000],
  [0x3c, 1, 0x0a],
] as const;

/** `iommu`: as the guest is started with. */
export function openSimulated(iommu: IommuChoice = 'intel'): Opened {
  const vtd = { capabilities: { ...decodeCap(CAP), ...decodeEcap(ECAP), HAW } };
  const machine = new Machine({
    iommu: iommu === 'none' ? iommu : vtd,
    selftest: true,
    devices: { [EDU]: new Edu({ dmaMask: (1n << 48n) - 1n }) },
  });
  for (const [offset, width, value] of FIRMWARE) machine.device(EDU)?.config.write(offset, width, value);
  return { kernel: openKernel(machine), settle: () => void machine.idle() };
}
