/** End-to-end data protection: what the controller does with the protection information of blocks. NVM Express 1.4, 8.3. */
import type { Command } from './command';
import type { Metadata, ProtectionType } from './config';
import { crc16 } from './crc';
import { ensure, STATUS } from './status';

/** Bytes of metadata that a block has, all of which are protection information where there is any. */
export const METADATA_BYTES = 8;
/** Big endian, all of them (8.3.1.1). */
const GUARD = 0;
const APPLICATION_TAG = 2;
const REFERENCE_TAG = 4;
/** Tags of blocks that are not checked (8.3.1.5). */
const UNCHECKED_APPLICATION = 0xffff;
const UNCHECKED_REFERENCE = 0xffff_ffff;

/** Dword 12, bits 29:26 (figure 347). */
const PRACT = 1 << 29;
const CHECK_GUARD = 1 << 28;
const CHECK_APPLICATION = 1 << 27;
const CHECK_REFERENCE = 1 << 26;

/** What a command asks for; nothing of a namespace that is not protected. */
export interface ProtectionRequest {
  readonly type: ProtectionType;
  /** The controller makes protection information of a write, and takes it from what is read. */
  readonly act: boolean;
  readonly guard: boolean;
  readonly application: boolean;
  readonly reference: boolean;
  /** The reference tag of the first block. */
  readonly initial: number;
  readonly tag: number;
  /** Bits of the application tag to check. */
  readonly mask: number;
}

/** PRINFO in dword 12, the initial reference tag in dword 14, mask and application tag in dword 15. Throws CommandError. */
export function protectionRequest({ protection: type }: Metadata, command: Command): ProtectionRequest {
  const info = type === 0 ? 0 : command.dword(12);
  const reference = (info & CHECK_REFERENCE) !== 0;
  const initial = command.dword(14);
  // The tag of type 1 is the block's address; that of type 3 is none of the controller's business.
  const wrong = type === 3 || (type === 1 && initial !== command.dword(10));
  ensure(!(reference && wrong), STATUS.INVALID_PROTECTION_INFORMATION);
  return {
    ...{ type, act: (info & PRACT) !== 0, reference, initial },
    guard: (info & CHECK_GUARD) !== 0,
    application: (info & CHECK_APPLICATION) !== 0,
    tag: command.dword(15) & 0xffff,
    mask: command.dword(15) >>> 16,
  };
}

/** The reference tag of a block: those of type 3 do not count. */
function referenceOf({ type, initial }: ProtectionRequest, block: number): number {
  return type === 3 ? initial : (initial + block) >>> 0;
}

/** Protection information for blocks of data (8.3.1.4). */
export function generate(request: ProtectionRequest, data: Uint8Array, blockSize: number): Uint8Array {
  const blocks = data.length / blockSize;
  const metadata = new Uint8Array(blocks * METADATA_BYTES);
  const view = new DataView(metadata.buffer);
  for (let block = 0, at = 0; block < blocks; block++, at += METADATA_BYTES) {
    view.setUint16(at + GUARD, crc16(data, block * blockSize, (block + 1) * blockSize));
    view.setUint16(at + APPLICATION_TAG, request.tag);
    view.setUint32(at + REFERENCE_TAG, referenceOf(request, block));
  }
  return metadata;
}

/** Checks what the command wants to be checked (8.3.1.5): the status where something is wrong. */
export function failedCheck(
  request: ProtectionRequest,
  data: Uint8Array,
  metadata: Uint8Array,
  blockSize: number,
): number | undefined {
  const { type, mask, tag } = request;
  const view = new DataView(metadata.buffer, metadata.byteOffset, metadata.length);
  for (let block = 0, at = 0; at < metadata.length; block++, at += METADATA_BYTES) {
    const application = view.getUint16(at + APPLICATION_TAG);
    const reference = view.getUint32(at + REFERENCE_TAG);
    const unchecked = type !== 3 || reference === UNCHECKED_REFERENCE;
    if (application === UNCHECKED_APPLICATION && unchecked) continue;
    if (request.guard) {
      const guard = crc16(data, block * blockSize, (block + 1) * blockSize);
      if (view.getUint16(at + GUARD) !== guard) return STATUS.GUARD_CHECK_ERROR;
    }
    if (request.application && (application & mask) !== (tag & mask))
      return STATUS.APPLICATION_TAG_CHECK_ERROR;
    if (request.reference && reference !== referenceOf(request, block))
      return STATUS.REFERENCE_TAG_CHECK_ERROR;
  }
  return undefined;
}

/**
 * Protection information is stored inverted: where nothing was written, or blocks were deallocated, it reads as ones, which
 * no check looks at (6.7.1.1).
 */
function invert(bytes: Uint8Array, { protection }: Metadata): Uint8Array {
  return protection === 0 ? bytes : bytes.map((byte) => ~byte);
}

export function readMetadata(metadata: Metadata, lba: number, blocks: number): Uint8Array {
  const bytes = new Uint8Array(blocks * METADATA_BYTES);
  metadata.storage.read(lba * METADATA_BYTES, bytes);
  return invert(bytes, metadata);
}

export function writeMetadata(metadata: Metadata, lba: number, bytes: Uint8Array): void {
  metadata.storage.write(lba * METADATA_BYTES, invert(bytes, metadata));
}

/** Data and metadata as one buffer has them, block by block (8.2.1). */
export function interleave(data: Uint8Array, metadata: Uint8Array, blockSize: number): Uint8Array {
  const step = blockSize + METADATA_BYTES;
  const both = new Uint8Array(data.length + metadata.length);
  for (let block = 0; block * step < both.length; block++) {
    both.set(data.subarray(block * blockSize, (block + 1) * blockSize), block * step);
    const from = block * METADATA_BYTES;
    both.set(metadata.subarray(from, from + METADATA_BYTES), block * step + blockSize);
  }
  return both;
}

/** The reverse of interleave(). */
export function separate(both: Uint8Array, blockSize: number): { data: Uint8Array; metadata: Uint8Array } {
  const step = blockSize + METADATA_BYTES;
  const blocks = both.length / step;
  const data = new Uint8Array(blocks * blockSize);
  const metadata = new Uint8Array(blocks * METADATA_BYTES);
  for (let block = 0; block < blocks; block++) {
    data.set(both.subarray(block * step, block * step + blockSize), block * blockSize);
    metadata.set(both.subarray(block * step + blockSize, (block + 1) * step), block * METADATA_BYTES);
  }
  return { data, metadata };
}
