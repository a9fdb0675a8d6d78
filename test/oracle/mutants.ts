/**
 * Bugs to plant in the compiled unit: a piece of a file, and what it becomes. `modes` are those whose oracle has to find
 * it; one is enough.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { UnitFactory } from '../../scripts/oracle/ours';
import type { Mode } from '../../scripts/oracle/scene';
import type * as vtd from '../../lib/sim/vtd';

export interface Mutant {
  readonly name: string;
  readonly mode: Mode;
  readonly file: string;
  /** Occurs once in the file. */
  readonly from: string;
  readonly to: string;
}

const LIB = join(__dirname, '../../lib');
/** What the unit consists of and imports. */
const PARTS = ['sim/vtd', 'sim/memory.js', 'sim/bus.js', 'uapi'];

/** A unit with the bug, loaded from a copy of the simulator. `remove` deletes the copy. */
export function plant({ file, from, to }: Pick<Mutant, 'file' | 'from' | 'to'>): {
  create: UnitFactory;
  remove: () => void;
} {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-mutant-'));
  for (const part of PARTS) cpSync(join(LIB, part), join(folder, part), { recursive: true });
  const path = join(folder, 'sim/vtd', file);
  const text = readFileSync(path, 'utf8');
  const pieces = text.split(from);
  if (pieces.length !== 2) throw new Error(`'${from}' is ${pieces.length - 1} times in ${file}`);
  writeFileSync(path, pieces.join(to));
  const { VtdUnit } = createRequire(path)('./index.js') as typeof vtd;
  return {
    create: (options) => new VtdUnit(options),
    remove: () => rmSync(folder, { recursive: true }),
  };
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'the upper half of a legacy root entry is not checked',
    mode: 'legacy',
    file: 'root-table.js',
    from: '(0, layout_1.anyBits)(words, (0, layout_1.reservedBits)(exports.LEGACY_ROOT_ENTRY, [], haw))',
    to: 'false',
  },
  {
    name: 'reserved bits of a legacy context entry are ignored',
    mode: 'legacy',
    file: 'legacy-context-table.js',
    from: 'DID: [87, 72]',
    to: 'DID: [95, 72]',
  },
  {
    name: 'pass-through is refused',
    mode: 'legacy',
    file: 'legacy-context-table.js',
    from: 'return capabilities.PT !== 0',
    to: 'return false',
  },
  {
    name: 'the input width is a bit too wide',
    mode: 'legacy',
    file: 'second-stage.js',
    from: 'Math.min(capabilities.MGAW + 1, 12 + 9 * levels)',
    to: 'Math.min(capabilities.MGAW + 1, 13 + 9 * levels)',
  },
  {
    name: 'only the leaf’s permissions count',
    mode: 'legacy',
    file: 'second-stage.js',
    from: 'permissions &= entryLow',
    to: 'permissions = entryLow & 3',
  },
  {
    name: 'a superpage leads to its first page',
    mode: 'second-stage',
    file: 'second-stage.js',
    from: '(low & ~mask & ~0xfff)',
    to: '0',
  },
  {
    name: 'an address bit of a superpage is not reserved',
    mode: 'legacy',
    file: 'second-stage.js',
    from: '(12 + 9 * (level - 1)) & ~0xfff',
    to: '(12 + 9 * (level - 1)) & ~0x1fff',
  },
  {
    name: 'a lack of read permission is reported as one of write permission',
    mode: 'legacy',
    file: 'fault-reasons.js',
    from: 'read: exports.LGN_3_READ',
    to: 'read: exports.LGN_2_WRITE',
  },
  {
    name: 'a top table that is missing is reported as another table',
    mode: 'second-stage',
    file: 'second-stage.js',
    from: 'level === levels ? stage.reasons.topAccess : stage.reasons.access',
    to: 'stage.reasons.access',
  },
  {
    name: 'an address width that SAGAW has not is accepted',
    mode: 'second-stage',
    file: 'pasid-table.js',
    from: '((capabilities.SAGAW >> entry.AW) & 1) !== 0',
    to: 'entry.AW < 4',
  },
  {
    name: 'the wrong half of the root entry is used',
    mode: 'second-stage',
    file: 'root-table.js',
    from: '(rid & 0x80) === 0 ? 0 : 8',
    to: '(rid & 0x80) === 0 ? 8 : 0',
  },
  {
    name: 'page-selective invalidation keeps the rest of a superpage',
    mode: 'second-stage',
    file: 'iotlb.js',
    from: 'Math.max(am, orderOf(this.words[at + 2]))',
    to: 'am',
  },
  {
    name: 'domain-selective invalidation keeps stale entries',
    mode: 'legacy',
    file: 'iotlb.js',
    from: 'if (tag !== 0 && domainOf[tag] === did)',
    to: 'if (false)',
  },
  {
    name: 'page-selective invalidation does not ask for the domain',
    mode: 'second-stage',
    file: 'iotlb.js',
    from: 'if (tag === 0 || domainOf[tag] !== did)',
    to: 'if (tag === 0)',
  },
  {
    name: 'a PASID-based invalidation drops second-stage entries',
    mode: 'second-stage',
    file: 'iotlb.js',
    from: 'if (isFirstStage(this.words[at + 2]) && this.touches(at, high, low, am))',
    to: 'if (this.touches(at, high, low, am))',
  },
  {
    name: 'first-stage entries outlive a page-selective invalidation of their domain',
    mode: 'first-stage',
    file: 'iotlb.js',
    from: 'if (isFirstStage(words[at + 2]) || (',
    to: 'if ((',
  },
  {
    name: 'Set Root Table Pointer keeps what is cached',
    mode: 'legacy',
    file: 'unit.js',
    from: 'if (this.capabilities.ESRTPS !== 0)',
    to: 'if (false)',
  },
  {
    name: 'reads are recorded as writes',
    mode: 'legacy',
    file: 'fault-recording.js',
    from: '? 1 << 30 : 0',
    to: '? 0 : 1 << 30',
  },
  {
    name: 'the recorded address is not that of the page',
    mode: 'legacy',
    file: 'fault-recording.js',
    from: 'low & ~0xfff',
    to: 'low',
  },
  {
    name: 'faults of one source are not collapsed',
    mode: 'legacy',
    file: 'fault-recording.js',
    from: 'if (this.isPending(rid))',
    to: 'if (false)',
  },
  {
    name: 'FPD does not keep a fault from being recorded',
    mode: 'first-stage',
    file: 'remapper.js',
    from: 'refuse(rid, pasid, high, low, access, addressType, reason) {\n        if (!this.entries.fpd',
    to: 'refuse(rid, pasid, high, low, access, addressType, reason) {\n        if (true',
  },
  {
    name: 'FPD keeps a PASID entry that cannot be read from being recorded',
    mode: 'second-stage',
    file: 'entry-lookup.js',
    from: ' && fault !== fault_reasons_1.SPD_1_ACCESS && fault !== fault_reasons_1.SPT_1_ACCESS',
    to: '',
  },
  {
    name: 'the interrupt range is somewhere else',
    mode: 'legacy',
    file: 'walk.js',
    from: 'low >>> 20 === 0xfee',
    to: 'low >>> 20 === 0xfef',
  },
  {
    name: 'A is set in the leaf only',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: 'for (let i = 0; i < walk.depth; i++) {\n        const flags',
    to: 'for (let i = walk.depth - 1; i < walk.depth; i++) {\n        const flags',
  },
  {
    name: 'reads set D',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: 'i === walk.depth - 1 && write ?',
    to: 'i === walk.depth - 1 ?',
  },
  {
    name: 'only the leaf’s U/S and R/W count',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: 'common &= entryLow',
    to: 'common = entryLow',
  },
  {
    name: 'bit 47 is not part of the canonical check',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: 'levels === 5 ? 24 : 15',
    to: 'levels === 5 ? 24 : 16',
  },
  {
    name: 'PS in a PML4 entry is not reserved',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: 'reservedLow[2 * level] = FS_PS',
    to: 'reservedLow[2 * level] = 0',
  },
  {
    name: 'pages of 1 GiB are taken for tables',
    mode: 'first-stage',
    file: 'first-stage.js',
    from: '(capabilities.FS1GP << 3)',
    to: '0',
  },
];
