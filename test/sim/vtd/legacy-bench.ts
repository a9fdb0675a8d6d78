/** A bench in legacy mode: one function, whose context entry leads to 4 levels of second-stage tables. */
import {
  AW_48_BIT,
  encodeLegacyContextEntry,
  encodeLegacyRootEntry,
  GCMD_QIE,
  GCMD_REG,
  GCMD_SRTP,
  GCMD_TE,
  LEGACY_CONTEXT_ENTRY,
  legacyContextEntryAddress,
  RTADDR_REG,
  StaleUse,
  VtdCapabilities,
} from '../../../lib/sim/vtd';
import { Bench, RID, RW } from './bench';

/** What is mapped at first, and where to. */
export const ADDRESS = 0x40_1234_5678n;
export const TARGET = 0x123_4000;

type Fields = Partial<ReturnType<typeof LEGACY_CONTEXT_ENTRY.decode>>;

export class Legacy extends Bench {
  readonly legacyContexts = this.page();
  readonly tables = this.page();
  /** Address of the root entry of bus 0. */
  readonly rootEntry: number;
  readonly entry = legacyContextEntryAddress(this.legacyContexts, RID);

  constructor(capabilities: Partial<VtdCapabilities> = {}, strict?: (use: StaleUse) => void) {
    super({ HAW: 46, ...capabilities }, strict);
    this.rootEntry = this.rootTable;
    this.memory.writeWords(this.rootEntry, encodeLegacyRootEntry(this.legacyContexts));
    this.set({});
    this.map(this.tables, 4, ADDRESS & ~0xfffn, TARGET, RW, RW);
    this.write64(RTADDR_REG, this.rootTable, 0);
    this.reload();
  }

  set(fields: Fields): void {
    this.memory.writeWords(
      this.entry,
      encodeLegacyContextEntry({ P: 1, AW: AW_48_BIT, DID: 5, SSPTPTR: this.tables, ...fields }),
    );
  }

  reload(): void {
    this.unit.write32(GCMD_REG, GCMD_SRTP | GCMD_TE | GCMD_QIE);
  }

  /** Flips bits of a 32-bit word and drops the caches. */
  flip(at: number, bits: number): void {
    this.memory.write32(at, this.memory.read32(at) ^ bits);
    this.reload();
  }
}
