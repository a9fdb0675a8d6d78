/** A machine with a parent of mediated devices, and what tests do with those. */
import { Iommu, type AddressSpace, type Device, type DmaBuffer, type FaultQueue } from '../../../lib';
import {
  ChannelEngine,
  CONTROL_START,
  dmaEngine,
  Machine,
  OPERATION_FILL,
  PASID_ENABLE,
  STATUS_BUSY,
  STATUS_ERROR_SHIFT,
  type MachineOptions,
} from '../../../lib/sim';

export const PARENT = '0000:00:06.0';
export const OTHER_PARENT = '0000:00:07.0';
export const PAGE = 4096;
/** Where pPASIDs begin: numbers that nothing else has, so that one in an output is found. */
export const SPACES = { perRid: 0x5a5a1, global: 0xc3c31 };

export const parentDevice = () => ({ device: new ChannelEngine(), driver: 'channel-engine' });

export function machineWith(options: MachineOptions = {}): Machine {
  return new Machine({
    manual: true,
    pasids: SPACES,
    devices: { [PARENT]: parentDevice(), [OTHER_PARENT]: parentDevice() },
    ...options,
  });
}

export type TypeName = 'software' | 'channel' | 'pasid' | 'enqcmd';

/** Makes a mediated device and binds it. */
export function bindNew(iommu: Iommu, type: TypeName, cookie: bigint, parent = PARENT): Device {
  const { uuid } = iommu.createMdev({ parent, type: `channel-engine-${type}` });
  const device = iommu.bind(uuid, { cookie });
  device.enableBusMaster();
  return device;
}

/** Starts a command that fills `length` bytes at `iova`. */
export function startFill(
  device: Device,
  iova: bigint,
  options: { pasid?: number; flags?: number; length?: number } = {},
) {
  const registers = device.region('bar0');
  const { pasid, flags = 0, length = 16 } = options;
  registers.write64(dmaEngine.DESTINATION, iova);
  registers.write32(dmaEngine.LENGTH, length);
  registers.write32(dmaEngine.PATTERN, 0x5a5a5a5a);
  registers.write32(dmaEngine.PASID, pasid === undefined ? 0 : (PASID_ENABLE | pasid) >>> 0);
  registers.write32(dmaEngine.CONTROL, CONTROL_START | OPERATION_FILL | flags);
}

/** The error code of the last command; -1 while it runs. */
export function outcome(device: Device): number {
  const status = device.region('bar0').read32(dmaEngine.STATUS);
  return status & STATUS_BUSY ? -1 : (status >>> STATUS_ERROR_SHIFT) & 0xff;
}

/** Fills, and returns the error code. */
export function fill(
  machine: Machine,
  device: Device,
  iova: bigint,
  options: { pasid?: number; flags?: number } = {},
) {
  startFill(device, iova, options);
  machine.idle();
  return outcome(device);
}

/** An address space with a page at `iova`. */
export function spaceWith(
  iommu: Iommu,
  iova: bigint,
  options: { pasid?: boolean; faults?: FaultQueue } = {},
): { space: AddressSpace; buffer: DmaBuffer } {
  const space = iommu.createAddressSpace(options);
  const buffer = iommu.allocateDma(PAGE);
  space.map(buffer, { iova });
  return { space, buffer };
}

export const written = (buffer: DmaBuffer) => buffer.bytes[0] === 0x5a;
