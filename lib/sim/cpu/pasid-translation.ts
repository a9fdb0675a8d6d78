/**
 * PASID translation of a virtual machine's ENQCMD (Intel SDM volume 3, "PASID Translation"; VMCS fields "low PASID
 * directory address" and "high PASID directory address").
 *
 * Bit 19 of a guest PASID chooses the directory, a page of 512 entries; bits 18:10 the entry in it, which points to a
 * PASID table, a page of 1024 entries; bits 9:0 the entry there, which has the host PASID.
 */
import { errno } from '../../uapi/errno';
import type { PhysicalMemory } from '../memory';

const PRESENT = 1;
/** Bits 11:1 of a directory entry. */
const DIRECTORY_RESERVED = 0xffe;
const VALID = 0x80000000;
/** Bits 30:20 of a table entry. */
const TABLE_RESERVED = 0x7ff00000;
export const PASID_BITS = 0xfffff;

const NOT_TRANSLATED = -1;

/** The structures, as hardware finds them: addresses of the directories for PASIDs with bit 19 clear, and set. */
export interface PasidDirectories {
  readonly low: number;
  readonly high: number;
}

function directoryEntry({ low, high }: PasidDirectories, pasid: number): number {
  return (pasid & 0x80000 ? high : low) + 8 * ((pasid >>> 10) & 0x1ff);
}

/** What the processor does: the host PASID, or -1, which is a VM exit. */
export function translatePasid(memory: PhysicalMemory, directories: PasidDirectories, pasid: number): number {
  const entry = new Int32Array(2);
  memory.readWords(directoryEntry(directories, pasid), entry);
  if (!(entry[0] & PRESENT) || entry[0] & DIRECTORY_RESERVED) return NOT_TRANSLATED;
  const table = (entry[1] >>> 0) * 2 ** 32 + ((entry[0] & ~0xfff) >>> 0);
  const found = new Int32Array(1);
  if (!memory.readWords(table + 4 * (pasid & 0x3ff), found)) return NOT_TRANSLATED;
  if (!(found[0] & VALID) || found[0] & TABLE_RESERVED) return NOT_TRANSLATED;
  return found[0] & PASID_BITS;
}

/** What the hypervisor does: keeps the structures in memory. */
export class PasidTables implements PasidDirectories {
  readonly #tables = new Map<number, number>();

  private constructor(
    readonly memory: PhysicalMemory,
    readonly low: number,
    readonly high: number,
  ) {}

  /** Empty ones. -ENOMEM where there is no memory for them. */
  static create(memory: PhysicalMemory): PasidTables | number {
    const low = memory.allocatePage();
    if (low < 0) return -errno.ENOMEM;
    const high = memory.allocatePage();
    if (high >= 0) return new PasidTables(memory, low, high);
    memory.freePage(low);
    return -errno.ENOMEM;
  }

  /** 0, or -ENOMEM. */
  map(guest: number, host: number): number {
    const at = directoryEntry(this, guest);
    let table = this.#tables.get(at);
    if (table === undefined) {
      table = this.memory.allocatePage();
      if (table < 0) return -errno.ENOMEM;
      this.#tables.set(at, table);
      this.memory.writeWords(at, Int32Array.of((table % 2 ** 32) | PRESENT, Math.floor(table / 2 ** 32)));
    }
    this.memory.writeWords(table + 4 * (guest & 0x3ff), Int32Array.of(VALID | host));
    return 0;
  }

  unmap(guest: number): void {
    const table = this.#tables.get(directoryEntry(this, guest));
    if (table !== undefined) this.memory.writeWords(table + 4 * (guest & 0x3ff), Int32Array.of(0));
  }

  free(): void {
    for (const page of [...this.#tables.values(), this.low, this.high]) this.memory.freePage(page);
  }
}
