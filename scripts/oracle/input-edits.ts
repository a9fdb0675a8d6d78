// Deviations that are about bits QEMU does not look at: our unit is shown the tables without them.
import { pasidReservedBits, type VtdCapabilities } from '../../lib/sim/vtd';
import type { QuirkName, Quirks } from './quirks';
import { contextEntry, DIRECTORY, NOWHERE, PAGE, PASIDS, type Scene } from './scene';
import { field } from './tables';

export type Edits = Map<number, { original: bigint; edited: bigint }>;

/** The words of a scene that our unit sees otherwise, by address. */
export function inputEdits(scene: Scene, capabilities: VtdCapabilities, quirks: Quirks): Edits {
  const edits: Edits = new Map();
  if (scene.mode === 'legacy') return edits;
  const edit = (at: number, quirk: QuirkName, change: (value: bigint) => bigint): void => {
    const original = edits.get(at)?.original ?? scene.words.get(at) ?? 0n;
    const edited = change(edits.get(at)?.edited ?? original);
    if (edited !== original && quirks.use(quirk)) edits.set(at, { original, edited });
  };
  // DTE, PASIDE and PRE; RID_PASID and RID_PRIV.
  edit(contextEntry(scene.mode).at, 'capabilityFields', (value) => value & ~0x1cn);
  edit(contextEntry(scene.mode).at + 8, 'capabilityFields', (value) => value & ~0x1f_ffffn);
  edit(DIRECTORY, 'reservedInPasidTables', (value) => value & ~0xffcn);
  const reserved = pasidReservedBits(capabilities);
  for (let i = 0; i < reserved.length / 2; i++) {
    const mask = BigInt(reserved[2 * i]! >>> 0) | (BigInt(reserved[2 * i + 1]! >>> 0) << 32n);
    edit(PASIDS + 8 * i, 'reservedInPasidTables', (value) => value & ~mask);
  }
  for (const at of [DIRECTORY, PASIDS, PASIDS + 16]) {
    edit(at, 'reservedInPasidTables', withoutWideAddress);
  }
  return edits;
}

/** A pointer beyond the host address width leads nowhere. */
function withoutWideAddress(value: bigint): bigint {
  return field(value, 63, 48) === 0 ? value : BigInt(NOWHERE) | (value & BigInt(PAGE - 1));
}
