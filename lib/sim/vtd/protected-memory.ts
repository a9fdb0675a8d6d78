/**
 * Protected memory regions: one below 4 GiB (CAP_REG.PLMR), one anywhere (CAP_REG.PHMR), that DMA must not reach before
 * software has set up remapping. Intel VT-d Architecture Specification rev. 4.1, sections 11.4.8.1 to 11.4.8.5
 * (PMEN_REG, PLMBASE_REG, PLMLIMIT_REG, PHMBASE_REG, PHMLIMIT_REG).
 *
 * While they are enabled (PMEN_REG.EPM), requests that are not remapped are blocked: all of them while translation is
 * disabled, pass-through and translated ones always. What is blocked here is no fault: nothing is recorded.
 */
import type { VtdCapabilities } from './capabilities';
import { joinHalves } from './layout';
import type { RegisterFile } from './register-file';
import {
  PHMBASE_REG,
  PHMLIMIT_REG,
  PLMBASE_REG,
  PLMLIMIT_REG,
  PMEN_EPM,
  PMEN_PRS,
  PMEN_REG,
  PMR_GRANULE,
} from './registers';

export class ProtectedMemory {
  /** Regions as [first, last + 1]; empty while protection is off. */
  private regions: readonly (readonly [number, number])[] = [];

  constructor(
    private readonly registers: RegisterFile,
    private readonly capabilities: VtdCapabilities,
  ) {}

  /** After software wrote one of the registers: the regions follow, and PRS follows EPM. */
  update(): void {
    const { registers } = this;
    const { PLMR, PHMR } = this.capabilities;
    const enabled = (registers.get(PMEN_REG) & PMEN_EPM) !== 0;
    registers.set(PMEN_REG, enabled ? PMEN_EPM | PMEN_PRS : 0);
    if (!enabled) {
      this.regions = [];
      return;
    }
    const low = [registers.get(PLMBASE_REG) >>> 0, registers.get(PLMLIMIT_REG) >>> 0] as const;
    const high = [registers.address(PHMBASE_REG), registers.address(PHMLIMIT_REG)] as const;
    // The limit names the last granule; a base above it switches a region off.
    this.regions = [...(PLMR !== 0 ? [low] : []), ...(PHMR !== 0 ? [high] : [])]
      .filter(([base, limit]) => base <= limit)
      .map(([base, limit]) => [base, limit + PMR_GRANULE]);
  }

  get enabled(): boolean {
    return this.regions.length > 0;
  }

  /** Whether a region has the byte at an address in halves. */
  covers(high: number, low: number): boolean {
    if (!this.enabled) return false;
    const physical = joinHalves(high, low);
    for (const [start, end] of this.regions) if (physical >= start && physical < end) return true;
    return false;
  }
}
