/** Trial: VtdUnit.locate over a first-stage table. Arguments: pages, milliseconds. */
import { ACCESS_WRITE, NO_PASID } from '../../../lib/sim/bus';
import { PhysicalMemory } from '../../../lib/sim/memory';
import * as vtd from '../../../lib/sim/vtd';
import { measure, report } from './measure';
import { addressOrder, CALLS, fold, IOVA_HIGH, IOVA_LOW, targetOf } from './pages';

const RID = 0x0020;
const TABLE = vtd.FS_P | vtd.FS_RW | vtd.FS_US;
const LEVELS = 4;

/** Enough of a driver: one function whose requests without PASID go through a first stage. */
function setUp(memory: PhysicalMemory): { unit: vtd.VtdUnit; root: number } {
  const unit = new vtd.VtdUnit({ memory, interrupt: () => {}, endpoint: () => undefined });
  const [rootTable, contexts, directory, pasids, root] = [0, 0, 0, 0, 0].map(() => memory.allocatePage());
  memory.writeWords(vtd.rootEntryAddress(rootTable, RID), vtd.encodeRootEntryHalf(contexts));
  const context = vtd.encodeContextEntry({ P: 1, PASIDE: 1, PDTS: 2, PASIDDIRPTR: directory });
  memory.writeWords(vtd.contextEntryAddress(contexts, RID), context);
  memory.writeWords(vtd.pasidDirectoryEntryAddress(directory, 0), vtd.encodePasidDirectoryEntry(pasids));
  const entry = { P: 1, PWSNP: 1, PGTT: vtd.PGTT_FIRST_STAGE, FSPM: vtd.FSPM_4_LEVEL, DID: 3, FSPTPTR: root };
  memory.writeWords(vtd.pasidEntryAddress(pasids, 0), vtd.encodePasidEntry(entry));
  unit.write64(
    vtd.RTADDR_REG,
    vtd.highHalf(rootTable),
    vtd.lowHalf(rootTable) | (vtd.TTM_SCALABLE << vtd.RTADDR_TTM_SHIFT),
  );
  unit.write32(vtd.GCMD_REG, vtd.GCMD_SRTP);
  unit.write32(vtd.GCMD_REG, vtd.GCMD_TE);
  return { unit, root };
}

function map(memory: PhysicalMemory, root: number, high: number, low: number, target: number): void {
  const address = high * 2 ** 32 + low;
  let table = root;
  for (let level = LEVELS; ; level--) {
    const entry = table + 8 * (Math.floor(address / 2 ** (3 + 9 * level)) % 512);
    if (level === 1) {
      memory.write64(entry, vtd.highHalf(target), vtd.lowHalf(target) | TABLE);
      return;
    }
    let next = memory.read32(entry) & ~0xfff;
    if (next === 0) {
      next = memory.allocatePage();
      memory.write64(entry, vtd.highHalf(next), vtd.lowHalf(next) | TABLE);
    }
    table = next;
  }
}

/** A function of its own, with nothing but locals: what is timed should be the unit's code. The sum of all addresses' words, or -1. */
function locateAll(unit: vtd.VtdUnit, order: Int32Array, from: number, to: number): number {
  const rid = RID;
  const pasid = NO_PASID;
  const high = IOVA_HIGH;
  const write = ACCESS_WRITE;
  const { host } = unit;
  let sum = 0;
  for (let i = from; i < to; i++) {
    const low = order[i];
    if (unit.locate(rid, pasid, high, low, (low >>> 12) & write) !== 0) return -1;
    sum = (sum + host.high + host.low) & 0x7fff_ffff;
  }
  return sum;
}

async function main(): Promise<void> {
  const pages = Number(process.argv[2]);
  const memory = new PhysicalMemory(64 * 2 ** 20);
  const { unit, root } = setUp(memory);
  for (let i = 0; i < pages; i++) map(memory, root, IOVA_HIGH, IOVA_LOW + 4096 * i, targetOf(i, pages));
  const order = addressOrder(pages);
  let at = 0;
  const value = await measure({ calls: CALLS }, () => {
    if (locateAll(unit, order, at, at + CALLS) < 0) throw new Error('a translation was refused');
    at = (at + CALLS) % order.length;
  });
  let check = 0;
  for (const low of order) {
    unit.locate(RID, NO_PASID, IOVA_HIGH, low, (low >>> 12) & ACCESS_WRITE);
    check = fold(check, unit.host.high, unit.host.low);
  }
  report(value, check);
}

void main();
