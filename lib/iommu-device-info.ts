/** What the RFC's IOMMU_DEVICE_GET_INFO says of a device (section 2): which address spaces it can have. */
import type { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import { runAll } from './handle';
import type { HardwareInfo } from './hardware-info';
import { attempt, call } from './ioctl';
import { readIovaRanges, type IovaRange } from './iova';
import type { Kernel } from './kernel';
import { formatsOf, type TableFormat } from './table-formats';
import * as uapi from './uapi';

/** A device's view of I/O address spaces. */
export interface IommuDeviceInfo {
  readonly cookie: bigint;
  /** The device for people. */
  readonly name: string;
  /** Bytes, ascending: the sizes that every page table for this device has; it may have larger ones too. */
  readonly pageSizes: readonly number[];
  /** IOVAs that can be mapped for the device, ascending: what its IOMMU translates, less what is reserved. */
  readonly iovaRanges: readonly IovaRange[];
  /** How a space on another is translated: by the IOMMU walking both tables, or by a merged shadow. */
  readonly nesting: 'hardware' | 'software';
  /** Formats of page tables that the user may keep. None without hardware nesting. */
  readonly userPageTables: readonly TableFormat[];
  /** Formats of whole PASID tables that the user may keep. */
  readonly userPasidTables: readonly TableFormat[];
  /** Whether the IOMMU can make all DMA of the device snoop caches; undefined where the kernel does not tell. */
  readonly enforceSnoop: boolean | undefined;
  /** Width of the device's PASIDs in bits; 0: it has none. */
  readonly pasidBits: number;
  /** Whether what the device writes can be recorded. */
  readonly dirtyTracking: boolean;
}

/** Throws IommuError. */
export function readDeviceInfo(context: Context, device: BoundDevice): IommuDeviceInfo {
  const hardware = device.hardwareInfo();
  const { ranges, smallest, nests } = tryTables(context, device.id);
  const bdf = 'bdf' in device ? device.bdf : undefined;
  const reserved = typeof bdf === 'string' ? readReserved(context.kernel, bdf) : [];
  const formats = nests ? formatsOf(hardware) : { pageTables: [], pasidTables: [] };
  return {
    cookie: device.cookie,
    name: device.name,
    pageSizes: pageSizes(hardware, smallest),
    iovaRanges: subtract(ranges, reserved),
    nesting: nests ? 'hardware' : 'software',
    userPageTables: formats.pageTables,
    userPasidTables: formats.pasidTables,
    enforceSnoop: enforcesSnoop(hardware),
    pasidBits: hardware.maxPasidLog2,
    dirtyTracking: hardware.capabilities.dirtyTracking,
  };
}

/** Makes page tables for the device on an IOAS that nobody uses: only the driver knows what they can do. */
function tryTables(context: Context, deviceId: number) {
  const { kernel, fd } = context;
  const made: number[] = [call(kernel, fd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id];
  const [ioasId] = made;
  try {
    const values = { dev_id: deviceId, pt_id: ioasId };
    made.push(call(kernel, fd, uapi.IOMMU_HWPT_ALLOC, values).out_hwpt_id);
    const { alignment, ranges } = readIovaRanges(context, ioasId);
    const flags = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
    const parent = attempt(kernel, fd, uapi.IOMMU_HWPT_ALLOC, { ...values, flags });
    if (parent.result >= 0) made.push(parent.out.out_hwpt_id);
    return { ranges, smallest: Number(alignment), nests: parent.result >= 0 };
  } finally {
    runAll(made.reverse().map((id) => () => destroy(context, id)));
  }
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;

function pageSizes({ vtd }: HardwareInfo, smallest: number): number[] {
  if (!vtd) return [smallest];
  // The kernel's driver chooses the stage: what both have counts, where both are there (VT-d specification, 11.4.2).
  const { cap, ecap } = vtd;
  const [first, second] = [ecap.FSTS === 1, ecap.SMTS === 0 || ecap.SSTS === 1];
  const has2M = !second || (cap.SSLPS & 1) !== 0;
  const has1G = (!second || (cap.SSLPS & 2) !== 0) && (!first || cap.FS1GP === 1);
  return [smallest, ...(has2M ? [2 * MIB] : []), ...(has1G ? [GIB] : [])];
}

/** Snoop Control of VT-d; AMD's always does. An SMMUv3's is in firmware tables that the kernel does not pass on. */
export function enforcesSnoop({ type, vtd }: HardwareInfo): boolean | undefined {
  if (vtd) return vtd.ecap.SC === 1;
  return type === 'amd' ? true : undefined;
}

/** First and last bytes of what is reserved for a PCI device's group (sysfs-kernel-iommu_groups). */
export function readReserved(kernel: Kernel, bdf: string): { start: bigint; last: bigint }[] {
  const text = kernel.readFile(`/sys/bus/pci/devices/${bdf}/iommu_group/reserved_regions`);
  if (typeof text === 'number') return [];
  return text
    .split('\n')
    .map((line) => line.trim().split(' '))
    .filter(([, last, kind]) => last !== undefined && kind !== 'direct-relaxable')
    .map(([start, last]) => ({ start: BigInt(start), last: BigInt(last) }));
}

/** The ranges less the reserved ones, ascending. */
export function subtract(
  ranges: readonly IovaRange[],
  reserved: readonly { start: bigint; last: bigint }[],
): IovaRange[] {
  let left = ranges.map(({ iova, length }) => [iova, iova + length] as const);
  for (const { start, last } of reserved)
    left = left.flatMap(([first, end]) => {
      if (last < first || start >= end) return [[first, end] as const];
      return (
        [
          [first, start],
          [last + 1n, end],
        ] as const
      ).filter(([from, to]) => from < to);
    });
  return left.map(([iova, end]) => ({ iova, length: end - iova }));
}
