/** A processor of a virtual machine, as far as ENQCMD goes (Intel SDM volume 2, "ENQCMD"; volume 3, VM exits). */
import { COMMAND_BYTES } from '../devices/channel-engine-registers';
import type { PhysicalMemory } from '../memory';
import type { EnqueueTarget } from './enqcmd';
import { PASID_BITS, translatePasid, type PasidDirectories } from './pasid-translation';

/** Bits of the IA32_PASID MSR (D93H) besides the PASID in 19:0. */
export const IA32_PASID_VALID = 0x80000000;
const IA32_PASID_RESERVED = 0x7ff00000;

/** Basic exit reasons (SDM volume 3, appendix C). */
export const EXIT_EPT_VIOLATION = 48;
export const EXIT_ENQCMD_PASID_TRANSLATION = 72;

/** How an ENQCMD ended. */
export type EnqcmdResult =
  /** ZF is 0: the device took the command; or 1: it did not, and the guest shall try again. */
  | { readonly kind: 'done'; readonly ZF: 0 | 1 }
  /** #GP(0), in the guest. */
  | { readonly kind: 'general-protection' }
  /** The hypervisor gets control. */
  | { readonly kind: 'exit'; readonly reason: number };

/** What of the virtual machine the processor asks. */
export interface VcpuMachine {
  readonly memory: PhysicalMemory;
  /** Present while the VM-execution control "PASID translation" is 1. */
  readonly directories: PasidDirectories | undefined;
  /** The device memory at a guest-physical address, and where in it that is. */
  deviceAt(address: number): { readonly target: EnqueueTarget; readonly offset: number } | undefined;
}

export class Vcpu {
  #pasid = 0;

  constructor(readonly machine: VcpuMachine) {}

  /** IA32_PASID, as the guest's kernel writes it: 19:0 the PASID, 31 valid. RangeError for a reserved bit (#GP). */
  get ia32Pasid(): number {
    return this.#pasid;
  }

  set ia32Pasid(value: number) {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** 32 || value & IA32_PASID_RESERVED)
      throw new RangeError(`IA32_PASID has bits 19:0 and 31, not 0x${value.toString(16)}`);
    this.#pasid = value;
  }

  /**
   * ENQCMD of 64 bytes to a guest-physical address, by an application: the command's first 4 bytes are replaced by the
   * PASID of IA32_PASID, translated where the machine has that on. RangeError for other than 64 bytes.
   */
  enqcmd(address: number, command: Uint8Array): EnqcmdResult {
    if (command.length !== COMMAND_BYTES) throw new RangeError(`a command has ${COMMAND_BYTES} bytes`);
    if (address % COMMAND_BYTES || this.#pasid < IA32_PASID_VALID) return { kind: 'general-protection' };
    const { memory, directories } = this.machine;
    const guest = this.#pasid & PASID_BITS;
    const pasid = directories ? translatePasid(memory, directories, guest) : guest;
    if (pasid < 0) return { kind: 'exit', reason: EXIT_ENQCMD_PASID_TRANSLATION };
    const found = this.machine.deviceAt(address);
    const bytes = Uint8Array.from(command);
    new DataView(bytes.buffer).setUint32(0, pasid, true);
    const result = found?.target.enqueue(found.offset, bytes) ?? 'fault';
    if (result === 'fault') return { kind: 'exit', reason: EXIT_EPT_VIOLATION };
    return { kind: 'done', ZF: result === 'accepted' ? 0 : 1 };
  }
}
