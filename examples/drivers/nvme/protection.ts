/**
 * Protection information of blocks (NVM Express 1.4, 8.3): a guard of the data, an application tag, which says whose the block
 * is, and a reference tag, which says where it belongs. The controller checks it when blocks are written and read; the driver
 * checks it once more when they have arrived.
 */
import { crc16 } from './crc';
import type { Command } from './queue';

/** Bytes of a block's protection information; guard and tags are big endian. */
export const TUPLE = 8;
const APPLICATION_TAG = 2;
const REFERENCE_TAG = 4;
/** Nobody checks blocks with this application tag: such as were never written have it. */
const UNCHECKED = 0xffff;
const UNCHECKED_REFERENCE = 0xffff_ffff;
/** Dword 12: what the controller is to check. */
const CHECK_GUARD = 1 << 28;
const CHECK_APPLICATION = 1 << 27;
const CHECK_REFERENCE = 1 << 26;
/** Of the application tag, all bits. */
const MASK = 0xffff_0000;

export interface ProtectedFormat {
  /** Type of protection, 1 to 3. */
  readonly protection: number;
  /** Bytes. */
  readonly blockSize: number;
  /** Blocks that were never written read as zeros. */
  readonly unwrittenZeros: boolean;
}

/** What a check has found. */
export interface Finding {
  /** Which block is wrong, what it has, and what it should have. */
  readonly problem: string | undefined;
  /** There are blocks that say they were never written: nothing but that says whose they are. */
  readonly unwritten: boolean;
}

export class Protection {
  readonly #format: ProtectedFormat;
  readonly #tag: number | undefined;
  readonly #namespace: number;
  /** A byte of what is no block's protection information. */
  readonly #nothing: number;

  /** `tag`: the application tag of all blocks, 0 to 0xfffe. Default: one that tells namespaces apart, and is never 0. */
  constructor(format: ProtectedFormat, namespace: number, tag: number | undefined) {
    this.#format = format;
    this.#namespace = namespace;
    this.#tag = tag;
    this.#nothing = tag === 0 ? 0x11 : 0;
  }

  get blockSize(): number {
    return this.#format.blockSize;
  }

  /**
   * The application tag of a block. Where one bit of a namespace's number is wrong, or of a block's address above those that
   * the reference tag has, it is another one; and it is three bits away, at least, from the one that nobody checks.
   */
  tagOf(lba: number): number {
    if (this.#tag !== undefined) return this.#tag;
    const value = this.#namespace ^ Math.floor(lba / 2 ** 32);
    return 0x4000 | ((value ^ (value >>> 12) ^ (value >>> 24)) & 0xfff);
  }

  /** A read or write of blocks from `lba` on that the controller checks. They have one application tag. */
  checked(command: Command, lba: number): Command {
    const [low, high, length] = command.dwords ?? [];
    // The reference tag of type 3 is not the controller's to check.
    const reference = this.#format.protection === 3 ? 0 : CHECK_REFERENCE;
    const checks = CHECK_GUARD | CHECK_APPLICATION | reference;
    return {
      ...command,
      dwords: [low, high, (length | checks) >>> 0, 0, low, (MASK | this.tagOf(lba)) >>> 0],
    };
  }

  /** Makes the protection information of blocks. */
  seal(data: Uint8Array, metadata: Uint8Array, lba: number): void {
    const { blockSize } = this.#format;
    const view = viewOf(metadata);
    const tag = this.tagOf(lba);
    for (let block = 0; block * blockSize < data.length; block++) {
      view.setUint16(TUPLE * block, crc16(data, block * blockSize, (block + 1) * blockSize));
      view.setUint16(TUPLE * block + APPLICATION_TAG, tag);
      view.setUint32(TUPLE * block + REFERENCE_TAG, (lba + block) % 2 ** 32);
    }
  }

  /** Makes it invalid: what is stale, or did not arrive, passes no check. */
  spoil(metadata: Uint8Array): void {
    metadata.fill(this.#nothing);
  }

  /** Checks blocks that were read. */
  check(data: Uint8Array, metadata: Uint8Array, lba: number): Finding {
    const { blockSize } = this.#format;
    const view = viewOf(metadata);
    const expected = this.tagOf(lba);
    let unwritten = false;
    for (let block = 0; block * blockSize < data.length; block++) {
      const [start, end] = [block * blockSize, (block + 1) * blockSize];
      const guard = view.getUint16(TUPLE * block);
      const tag = view.getUint16(TUPLE * block + APPLICATION_TAG);
      const reference = view.getUint32(TUPLE * block + REFERENCE_TAG);
      if (this.#unwritten(tag, reference)) {
        unwritten = true;
        if (this.#format.unwrittenZeros && !isZero(data, start, end))
          return { problem: `block ${lba + block} was never written, and is not zeros`, unwritten };
        continue;
      }
      const address = (lba + block) % 2 ** 32;
      const crc = crc16(data, start, end);
      if (tag === expected && reference === address && guard === crc) continue;
      const wrong = firstWrong(
        ['application tag', tag, expected],
        ['reference tag', reference, address],
        ['guard', guard, crc],
      );
      return { problem: `block ${lba + block} has the ${wrong}`, unwritten };
    }
    return { problem: undefined, unwritten };
  }

  #unwritten(tag: number, reference: number): boolean {
    return tag === UNCHECKED && (this.#format.protection !== 3 || reference === UNCHECKED_REFERENCE);
  }
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] !== 0) return false;
  return true;
}

/** The first that is not what is expected. */
function firstWrong(
  ...parts: readonly [name: string, found: number, expected: number][]
): string | undefined {
  const wrong = parts.find(([, found, expected]) => found !== expected);
  return wrong && `${wrong[0]} ${hex(wrong[1])}, not ${hex(wrong[2])}`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
