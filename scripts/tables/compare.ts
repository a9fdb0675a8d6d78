// Holds the tables of a dump against what Linux says is in them: the words against its listings, the model's walks against both.
import { registersOf, requireRegister, type Dump } from './dump';
import { walkInterrupts, type Message } from './interrupts';
import { listedPages, listedSlots, slotRecord, type ListedPage } from './linux';
import { readerOf, unitOf, walkOthers, walkSlot, type Walked } from './model';
import { entries, slots, tableOf, type ReadPage, type Slot } from './reader';

export interface Comparison {
  /** Present PASID entries. */
  slots: number;
  /** Lines of Linux's listings of pages, large ones included. */
  lines: number;
  /** 4 KiB pages that the model translated. */
  pages: number;
  /** Interrupt remapping table entries that Linux lists. */
  interrupts: number;
  /** Requests the model was given, interrupts included. */
  requests: number;
  /** One sentence each. */
  differences: string[];
}

export function compareDump(dump: Dump): Comparison {
  const read = readerOf(dump);
  const sent: Message[] = [];
  const unit = unitOf(dump, sent);
  const found = [...slots(read, requireRegister(registersOf(dump.files), 'RTADDR'))];
  const differences = compareLines(
    'dmar_translation_struct',
    listedSlots(dump.files),
    found.map(({ rid, pasid, root: words, context, entry }) => slotRecord(rid, pasid, words, context, entry)),
  );
  const walked: Walked = { pages: 0, requests: 0, differences };
  let lines = 0;
  for (const slot of found) {
    const listed = listedPages(dump.files, slot.rid, slot.pasid) ?? [];
    lines += listed.length;
    differences.push(...compareLines(slotName(slot), listed.map(pageRecord), pageRecords(read, slot)));
    walkSlot(unit, read, slot, listed, walked);
  }
  walkOthers(unit, new Set(found.map(({ rid }) => rid)), walked);
  const interrupts = walkInterrupts(dump, unit, read, sent);
  return {
    slots: found.length,
    lines,
    pages: walked.pages,
    interrupts: interrupts.entries,
    requests: walked.requests + interrupts.requests,
    differences: [...differences, ...interrupts.differences],
  };
}

const slotName = ({ rid, pasid }: Slot) => `requester 0x${rid.toString(16)} PASID ${pasid}`;

function pageRecord({ iova, path }: ListedPage): string {
  return `0x${iova.toString(16)}: ${path.map((entry) => entry.toString(16)).join(',')}`;
}

function pageRecords(read: ReadPage, slot: Slot): string[] {
  const table = tableOf(slot);
  if (!table) return [];
  return [...entries(read, table)].filter(({ kind }) => kind === 'page').map(pageRecord);
}

/** What is in one list and not in the other. */
function compareLines(what: string, linux: readonly string[], tables: readonly string[]): string[] {
  const [first, second] = [new Set(linux), new Set(tables)];
  return [
    ...linux.filter((line) => !second.has(line)).map((line) => `${what}: only Linux lists ${line}`),
    ...tables.filter((line) => !first.has(line)).map((line) => `${what}: Linux does not list ${line}`),
  ];
}
