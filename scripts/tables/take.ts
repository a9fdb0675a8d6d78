// Takes a dump from a running guest.
import type { GuestMemory } from '../vm/tables';
import { packPages, registersOf, requireRegister, writeDump, type Dump } from './dump';
import { entries, slots, tableOf, type ReadPage } from './reader';

const PAGE = 4096;
const ADDRESS = 0x000f_ffff_ffff_f000n;

/** A reader that remembers what it has read. */
function recorder(memory: Pick<GuestMemory, 'page'>): { pages: Map<bigint, Uint8Array>; read: ReadPage } {
  const pages = new Map<bigint, Uint8Array>();
  const read = (address: bigint) => {
    let page = pages.get(address);
    if (!page) pages.set(address, (page = memory.page(address)));
    return new BigUint64Array(page.buffer, page.byteOffset, PAGE / 8);
  };
  return { pages, read };
}

/** Every page of the unit's tables, and what Linux says of them. */
export function collectDump(files: ReadonlyMap<string, string>, memory: Pick<GuestMemory, 'page'>): Dump {
  const described = Object.fromEntries(files);
  const registers = registersOf(described);
  const { pages, read } = recorder(memory);
  for (const slot of slots(read, requireRegister(registers, 'RTADDR'))) {
    const table = tableOf(slot);
    // Looking at every entry reads every page.
    if (table) drain(entries(read, table));
  }
  const interrupts = requireRegister(registers, 'IRTA');
  const size = 16 << (Number(interrupts & 15n) + 1);
  if (interrupts & ADDRESS) for (let at = 0; at < size; at += PAGE) read((interrupts & ADDRESS) + BigInt(at));
  return { files: described, pages: packPages(pages) };
}

function drain(iterator: Iterator<unknown>): void {
  while (!iterator.next().done);
}

export function takeDump(files: ReadonlyMap<string, string>, memory: GuestMemory, path: string): void {
  writeDump(path, collectDump(files, memory));
}
