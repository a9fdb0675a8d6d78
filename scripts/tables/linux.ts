// What Linux's debugfs says of a VT-d unit's tables, as records that can be compared.
import { fileOf, type Dump } from './dump';

/** A page as Linux lists it: the entries on the way to it. */
export interface ListedPage {
  readonly iova: bigint;
  /** Entries by level, as in reader.ts's Entry: [1] is the PTE, [5] the PML5E. */
  readonly path: readonly bigint[];
}

/** An interrupt remapping table entry. */
export interface ListedInterrupt {
  readonly index: number;
  /** Requester: bus << 8 | device << 3 | function. */
  readonly sid: number;
  /** DST, all 32 bits. */
  readonly destination: number;
  readonly vector: number;
  readonly high: bigint;
  readonly low: bigint;
}

/** 'bb:dd.f' as a requester ID. */
function ridOf(text: string): number {
  const [bus, device, fn] = text.split(/[:.]/).map((part) => parseInt(part, 16));
  return (bus << 8) | (device << 3) | fn;
}

/** dmar_translation_struct: the present PASID entries (in legacy mode: context entries, with PASID -1), each as {@link slotRecord} writes it. */
export function listedSlots(files: Dump['files']): string[] {
  const lines = fileOf(files, 'dmar_translation_struct').split('\n');
  const rows = lines.map((line) => /^([0-9a-f:.]{7})\s+(\S+)\s+(\S+)\s+(-?\d+)\s+(\S+)$/.exec(line));
  return rows.flatMap((row) => {
    if (!row) return [];
    const words = (text: string) => text.split(':').map(BigInt).toReversed();
    return [slotRecord(ridOf(row[1]), Number(row[4]), words(row[2]), words(row[3]), words(row[5]))];
  });
}

/** A slot in one line; of the PASID entry the first three words, as Linux shows no more. */
export function slotRecord(
  rid: number,
  pasid: number,
  root: readonly bigint[],
  context: readonly bigint[],
  entry: readonly bigint[],
): string {
  const hex = (words: readonly bigint[]) => words.map((word) => word.toString(16)).join(',');
  return `requester 0x${rid.toString(16)} PASID ${pasid}: root ${hex(root)} context ${hex(context)} entry ${hex(entry.slice(0, 3))}`;
}

/** domain_translation_struct of a device, or of a PASID of it: undefined where Linux lists no table. */
export function listedPages(files: Dump['files'], rid: number, pasid: number): ListedPage[] | undefined {
  const device = (rid >> 3) & 31;
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  const bdf = `0000:${hex(rid >> 8)}:${hex(device)}.${rid & 7}`;
  const folder = pasid <= 0 ? bdf : `${bdf}/${pasid.toString(16)}`;
  const text = files[`${folder}/domain_translation_struct`];
  if (text === undefined || !text.startsWith(`Device ${bdf} `)) return undefined;
  const rows = text.split('\n').map((line) => /^(0x[0-9a-f]+) \|\s+(.*)$/.exec(line));
  return rows.flatMap((row) => {
    if (!row) return [];
    const columns = row[2].trim().split(/\s+/).map(BigInt);
    const path = [0n, 0n, 0n, 0n, 0n, 0n];
    for (const [i, value] of columns.entries()) path[5 - i] = value;
    return [{ iova: BigInt(row[1]) << 12n, path }];
  });
}

/** ir_translation_struct: the present entries. */
export function listedInterrupts(files: Dump['files']): ListedInterrupt[] {
  const pattern = /^ (\d+) +([0-9a-f:.]{7}) ([0-9a-f]{8}) ([0-9a-f]{2}) +([0-9a-f]{16})\t+([0-9a-f]{16})$/gm;
  return [...fileOf(files, 'ir_translation_struct').matchAll(pattern)].map((row) => ({
    index: Number(row[1]),
    sid: ridOf(row[2]),
    destination: parseInt(row[3], 16),
    vector: parseInt(row[4], 16),
    high: BigInt(`0x${row[5]}`),
    low: BigInt(`0x${row[6]}`),
  }));
}
