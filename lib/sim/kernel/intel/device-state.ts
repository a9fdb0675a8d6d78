/**
 * What the driver keeps for one device: its PASID table in memory, and the context entry that points to it
 * (VT-d specification, sections 9.3 to 9.6).
 */
import * as pci from '../../devices/pci-registers';
import type { PhysicalMemory } from '../../memory';
import { encodeContextEntry } from '../../vtd/context-table';
import * as pt from '../../vtd/pasid-table';
import type { KernelPciDevice } from '../iommu/core';
import type { AttachableDomain, Attachment } from './domain';

/** log2 of the PASIDs that the smallest directory holds: 2^7 entries (PDTS = 0) of 64 PASIDs each. */
const SMALLEST_DIRECTORY = 13;

/** A domain in a PASID slot. */
export interface Slot {
  readonly domain: AttachableDomain;
  readonly attachment: Attachment;
}

export class DeviceState {
  readonly rid: number;
  /** Under which its requests may come up: its own, and its aliases. */
  readonly requesterIds: ReadonlySet<number>;
  /** PASID → what is attached there. */
  readonly slots = new Map<number, Slot>();
  readonly atsEnabled: boolean;
  readonly priEnabled: boolean;
  /** 0 where the device has no PASIDs. */
  readonly pasidBits: number;
  readonly #directory: number;
  readonly #directoryPages: number;
  /** PASID tables, of which each entry of the directory has one or none. */
  readonly #tables: number[] = [];
  /** PDTS of the context entry: 2^(PDTS + 7) directory entries. */
  readonly #pdts: number;

  /** `allowed` says what the IOMMU can do; what device and IOMMU both can is turned on. */
  constructor(
    readonly memory: PhysicalMemory,
    readonly device: KernelPciDevice,
    allowed: { ats: boolean; pri: boolean; pasid: boolean },
  ) {
    this.rid = device.rid;
    this.requesterIds = new Set(device.dmaAliases.map(({ rid }) => rid));
    const { config } = device.pci;
    const pasid = config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
    const ats = config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    const pri = config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    this.pasidBits = allowed.pasid && pasid ? (config.read(pasid + pci.PASID_CAPABILITY, 2) >> 8) & 0x1f : 0;
    this.atsEnabled = allowed.ats && ats !== 0;
    this.priEnabled = allowed.pri && this.atsEnabled && pri !== 0;
    if (this.pasidBits) {
      const supported =
        config.read(pasid + pci.PASID_CAPABILITY, 2) & (pci.PASID_EXECUTE | pci.PASID_PRIVILEGED);
      config.write(pasid + pci.PASID_CONTROL, 2, supported | pci.PASID_CONTROL_ENABLE);
    }
    if (this.priEnabled) {
      config.write(pri + pci.PRI_ALLOCATION, 4, config.read(pri + pci.PRI_CAPACITY, 4));
      config.write(pri + pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
    }
    if (this.atsEnabled) config.write(ats + pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
    this.#pdts = Math.max(this.pasidBits - SMALLEST_DIRECTORY, 0);
    const bytes = 2 ** (this.#pdts + 7) * pt.PASID_DIRECTORY_ENTRY_BYTES;
    this.#directoryPages = Math.ceil(bytes / 4096);
    this.#directory = memory.allocatePages(this.#directoryPages);
    if (this.#directory < 0) throw new RangeError(`no memory for the PASID directory of ${device.bdf}`);
  }

  /** The context entry: requests without PASID use PASID 0's slot, as Linux has it. */
  contextEntry(): Int32Array {
    return encodeContextEntry({
      P: 1,
      DTE: Number(this.atsEnabled),
      PASIDE: Number(this.pasidBits > 0),
      PRE: Number(this.priEnabled),
      PDTS: this.#pdts,
      PASIDDIRPTR: this.#directory,
      RID_PASID: 0,
    });
  }

  /** Writes a PASID entry, making the table it is in if need be. False: out of memory. */
  writeEntry(pasid: number, entry: Int32Array): boolean {
    const address = this.#entryAddress(pasid);
    return address >= 0 && this.memory.writeWords(address, entry);
  }

  /** Gives the tables back. The hardware must have forgotten them. */
  free(): void {
    for (const table of this.#tables) this.memory.freePage(table);
    for (let page = 0; page < this.#directoryPages; page++)
      this.memory.freePage(this.#directory + page * 4096);
  }

  #entryAddress(pasid: number): number {
    const directoryEntry = pt.pasidDirectoryEntryAddress(this.#directory, pasid);
    const now = new Int32Array(2);
    this.memory.readWords(directoryEntry, now);
    const { P, SMPTBLPTR } = pt.PASID_DIRECTORY_ENTRY.decode(now);
    if (P) return pt.pasidEntryAddress(SMPTBLPTR, pasid);
    const table = this.memory.allocatePage();
    if (table < 0) return -1;
    this.#tables.push(table);
    this.memory.writeWords(directoryEntry, pt.encodePasidDirectoryEntry(table));
    return pt.pasidEntryAddress(table, pasid);
  }
}
