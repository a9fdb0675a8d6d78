/** Mediated devices and their parents (drivers/vfio/mdev's role), and the driver of channel engines that offers them. */
import {
  channelControl,
  CHANNEL_CONTROL_BYTES,
  DEFAULT_PASID_VALID,
} from '../../devices/channel-engine-registers';
import type { ChannelEngine } from '../../devices/channel-engine';
import { IommuGroup, type IommuDriver, type KernelDevice } from '../iommu/core';
import type { PartialFaults } from '../iommu/page-fault';
import type { PasidAllocator } from '../pasids';
import type { PciDevice } from '../pci';
import { MdevIommu } from './iommu';
import type { MdevType } from './types';

/** Of a group that nobody sees. */
const NO_GROUP = -1;
/** BAR of the engine's that only its driver uses. */
const CONTROL_BAR = 4;

/** The file through which a mediated device is in the hands of user space. */
export interface MdevUser {
  /** The ID under which it is bound to an iommufd, and which one that is. */
  readonly binding: { readonly iommufd: object; readonly id: number } | undefined;
}

/** Where vPASIDs get their pPASIDs from. */
export interface PasidSource {
  /** The pPASID that stands for a vPASID; -ENOSPC where there is none left. */
  acquire(vpasid: number): number;
  /** What acquire() would give, if that is settled before. */
  peek(vpasid: number): number | undefined;
  /** As often as acquire(). */
  release(vpasid: number, pasid: number): void;
}

/** pPASIDs for one device alone: a new one for each vPASID. */
function ownPasids(allocator: PasidAllocator): PasidSource {
  return {
    acquire: () => allocator.allocate(),
    peek: () => undefined,
    release: (_vpasid, pasid) => allocator.free(pasid),
  };
}

/** A device that hands out others. */
export class MdevParent {
  readonly devices: MdevDevice[] = [];
  readonly pasids: PasidAllocator;
  readonly global: PasidAllocator;
  readonly iommu: MdevIommu;
  /** A pPASID to which nothing is ever attached: what a vPASID without a meaning becomes. */
  readonly nobody: number;

  constructor(
    readonly pci: PciDevice,
    readonly engine: ChannelEngine,
    pasids: { perRid: PasidAllocator; readonly global: PasidAllocator },
    hardware: IommuDriver,
    readonly types: readonly MdevType[],
  ) {
    this.pasids = pasids.perRid;
    this.global = pasids.global;
    this.nobody = this.pasids.allocate();
    this.iommu = new MdevIommu(pci, hardware);
  }

  /** The lowest channel that nobody has, or -1. */
  freeChannel(): number {
    const taken = new Set(this.devices.map(({ channel }) => channel));
    return this.engine.channels.findIndex((_, channel) => !taken.has(channel));
  }

  /** Writes a register of the channel that only the driver has. */
  control(channel: number, register: number, value: number): void {
    this.engine.writeBar(CONTROL_BAR, channel * CHANNEL_CONTROL_BYTES + register, 4, value);
  }
}

export class MdevDevice implements KernelDevice {
  readonly group: IommuGroup<MdevDevice> = new IommuGroup(NO_GROUP);
  readonly partialFaults: PartialFaults = [];
  /** N of /dev/vfio/devices/vfioN. */
  vfioIndex = -1;
  opened: MdevUser | undefined;
  /** Where its vPASIDs get their pPASIDs from now on. */
  source: PasidSource;
  readonly own: PasidSource;
  /** vPASIDs that have a pPASID, and whom they have it from. */
  readonly #pasids = new Map<number, { readonly pasid: number; readonly source: PasidSource }>();

  constructor(
    readonly uuid: string,
    readonly type: MdevType,
    readonly parent: MdevParent,
    readonly channel: number,
    /** Marks its requests that name no PASID; -1 where it makes none of its own. */
    readonly defaultPasid: number,
  ) {
    this.group.devices.push(this);
    this.own = ownPasids(type.enqcmd ? parent.global : parent.pasids);
    this.source = this.own;
  }

  /** The channel's requests are its engine's; a software channel's DMA is the processor's. */
  get canNoSnoop(): boolean {
    return this.type.isolated && this.parent.pci.canNoSnoop;
  }

  /** vPASIDs in use. */
  get pasidsInUse(): number {
    return this.#pasids.size;
  }

  /** The pPASID of a vPASID that is attached. */
  pasidOf(vpasid: number): number | undefined {
    return this.#pasids.get(vpasid)?.pasid;
  }

  /** Gives a vPASID its pPASID. Returns it, or -errno. */
  acquire(vpasid: number): number {
    const { source } = this;
    const pasid = source.acquire(vpasid);
    if (pasid >= 0) this.#pasids.set(vpasid, { pasid, source });
    return pasid;
  }

  /** Takes it back: no command with it is left in the channel, whoever gets the pPASID next. */
  release(vpasid: number): void {
    const held = this.#pasids.get(vpasid);
    if (!held) return;
    this.abort(held.pasid);
    this.#pasids.delete(vpasid);
    held.source.release(vpasid, held.pasid);
  }

  /** Ends the channel's commands with a pPASID. */
  abort(pasid: number): void {
    this.parent.control(this.channel, channelControl.ABORT_PASID, pasid);
  }

  /** The channel as its next user shall find it. */
  reset(): void {
    if (!this.type.isolated) return;
    const pasid = (this.defaultPasid | DEFAULT_PASID_VALID) >>> 0;
    this.parent.control(this.channel, channelControl.DEFAULT_PASID, pasid);
  }
}
