/**
 * Whether a PCI function answers memory accesses (PCI local bus specification, section 6.2.2; PCI bus power management
 * interface specification, section 3.2). While it does not, vfio-pci takes mappings of its BARs away, and a load
 * from one is a SIGBUS. A reset takes them only while it lasts: an access waits for its end.
 */
import { findCapability } from './pci-capabilities';
import type { Region } from './region';

const COMMAND = 0x04;
const COMMAND_MEMORY = 1 << 1;
/** Power management control and status register, in its capability. */
const PMCSR = 4;
/** 0: D0, the only state with memory decoding. */
const PMCSR_POWER_STATE = 3;

export class MemoryDecoding {
  /** Offset of the PMCSR; -1 where the function has none. */
  readonly #pmcsr: number;

  /** Looks for the registers in a function's configuration space. */
  constructor(config: Region) {
    this.#pmcsr = findPmcsr(config);
  }

  /** Whether memory accesses are answered now. */
  isOn(config: Region): boolean {
    if ((config.read16(COMMAND) & COMMAND_MEMORY) === 0) return false;
    return this.#pmcsr < 0 || (config.read8(this.#pmcsr) & PMCSR_POWER_STATE) === 0;
  }

  /** What a write of `bytes` at `offset` of configuration space would end, as what the function must do instead. */
  endedBy(offset: number, bytes: Uint8Array): string | undefined {
    const command = bytes[COMMAND - offset];
    if (command !== undefined && (command & COMMAND_MEMORY) === 0) return 'keep decoding memory';
    const pmcsr = this.#pmcsr < 0 ? undefined : bytes[this.#pmcsr - offset];
    if (pmcsr !== undefined && (pmcsr & PMCSR_POWER_STATE) !== 0) return 'stay in power state D0';
    return undefined;
  }
}

function findPmcsr(config: Region): number {
  const found = findCapability(config, 'power-management');
  return found ? found.offset + PMCSR : -1;
}
