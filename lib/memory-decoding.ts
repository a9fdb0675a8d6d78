/**
 * Whether a PCI function answers memory accesses (PCI local bus specification, section 6.2.2; PCI bus power management
 * interface specification, section 3.2). While it does not, vfio-pci takes mappings of its BARs away, and a load
 * from one is a SIGBUS. A reset takes them only while it lasts: an access waits for its end.
 */
import type { Region } from './region';

export const COMMAND = 0x04;
const COMMAND_MEMORY = 1 << 1;
export const COMMAND_MASTER = 1 << 2;
const STATUS = 0x06;
const STATUS_CAPABILITIES = 1 << 4;
const CAPABILITIES_POINTER = 0x34;
/** The first address that can hold a capability; they are 4 bytes apart at least. */
const FIRST_CAPABILITY = 0x40;
const MOST_CAPABILITIES = (256 - FIRST_CAPABILITY) / 4;
const CAPABILITY_POWER_MANAGEMENT = 0x01;
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
  if ((config.read16(STATUS) & STATUS_CAPABILITIES) === 0) return -1;
  let at = config.read8(CAPABILITIES_POINTER) & ~3;
  for (let seen = 0; at >= FIRST_CAPABILITY && seen < MOST_CAPABILITIES; seen++) {
    if (config.read8(at) === CAPABILITY_POWER_MANAGEMENT) return at + PMCSR;
    at = config.read8(at + 1) & ~3;
  }
  return -1;
}
