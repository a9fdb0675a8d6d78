// A dump of a VT-d unit's tables as they were in a running Linux: pages of memory, and the text of Linux's debugfs.
import { readFileSync, writeFileSync } from 'node:fs';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { PhysicalMemory } from '../../lib/sim/memory';

const PAGE = 4096;
const FOUR_GIB = 2n ** 32n;
const LOW_RAM = 2 ** 31;

export interface Dump {
  /** Files of /sys/kernel/debug/iommu/intel, by path, and dmar_width, which has the DMAR table's width - 1. */
  readonly files: Readonly<Record<string, string>>;
  /** Physical address, '0x…' → the page's 4096 bytes, compressed (RFC 1951), in base 64. Pages of zeros are left out. */
  readonly pages: Readonly<Record<string, string>>;
}

export function readDump(path: string): Dump {
  return JSON.parse(readFileSync(path, 'utf8')) as Dump;
}

export function writeDump(path: string, dump: Dump): void {
  writeFileSync(path, `${JSON.stringify(dump, null, 2)}\n`);
}

export function packPages(pages: ReadonlyMap<bigint, Uint8Array>): Dump['pages'] {
  const filled = [...pages].filter(([, bytes]) => bytes.some((byte) => byte !== 0));
  return Object.fromEntries(
    filled.map(([address, bytes]) => [
      `0x${address.toString(16)}`,
      deflateRawSync(bytes, { level: 9 }).toString('base64'),
    ]),
  );
}

export function unpackPages(dump: Dump): Map<bigint, Uint8Array> {
  const unpack = (text: string) => inflateRawSync(Buffer.from(text, 'base64'));
  return new Map(Object.entries(dump.pages).map(([address, text]) => [BigInt(address), unpack(text)]));
}

/** Memory with the dump's pages in it and zeros everywhere else: a table that is not in the dump is empty. */
export function memoryOf(dump: Dump): PhysicalMemory {
  const pages = unpackPages(dump);
  const memory = new PhysicalMemory(LOW_RAM);
  const top = [...pages.keys()].reduce((most, address) => (address > most ? address : most), FOUR_GIB);
  memory.adopt(new ArrayBuffer(Number(top - FOUR_GIB) + PAGE));
  for (const [address, bytes] of pages)
    if (!memory.copyIn(Number(address), bytes, 0, PAGE))
      throw new RangeError(`the page at 0x${address.toString(16)} of the dump is outside memory`);
  return memory;
}

/** The unit's registers, as iommu_regset has them, by the kernel's names. */
export function registersOf(files: Dump['files']): Map<string, bigint> {
  const text = fileOf(files, 'iommu_regset');
  if (text.split('IOMMU: ').length !== 2) throw new RangeError('the dump is not of exactly one VT-d unit');
  const rows = [...text.matchAll(/^(\w+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)$/gm)];
  return new Map(rows.map(([, name, value]) => [name, BigInt(value)]));
}

/** Host address width in bits. */
export function widthOf(files: Dump['files']): number {
  return Number(fileOf(files, 'dmar_width')) + 1;
}

export function fileOf(files: Dump['files'], name: string): string {
  const text = files[name];
  if (text === undefined) throw new RangeError(`the dump has no ${name}`);
  return text;
}

export function requireRegister(registers: ReadonlyMap<string, bigint>, name: string): bigint {
  const value = registers.get(name);
  if (value === undefined) throw new RangeError(`the dump has no register ${name}`);
  return value;
}
