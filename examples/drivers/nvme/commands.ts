/** Commands, and what they return. NVM Express 1.4, chapters 5 and 6. */
import type { Command } from './queue';

const IDENTIFY = 0x06;
export const ALL_NAMESPACES = 0xffff_ffff;
export const IDENTIFY_BYTES = 4096;

/** Fields of Identify's answers. */
export interface ControllerIdentity {
  readonly serial: string;
  readonly model: string;
  readonly firmware: string;
  /** Bytes that a command transfers at most; Infinity where there is no limit. */
  readonly maxTransfer: number;
  readonly namespaces: number;
  readonly writeZeroes: boolean;
  readonly datasetManagement: boolean;
  /** Flush takes the broadcast namespace: it is of all namespaces then. */
  readonly flushAll: boolean;
}

export interface NamespaceIdentity {
  /** Logical blocks. */
  readonly blocks: number;
  /** Bytes. */
  readonly blockSize: number;
  /** Bytes of metadata that each block has. */
  readonly metadata: number;
  /** It comes in one buffer with the data. */
  readonly extended: boolean;
  /** Type of end-to-end data protection, 1 to 3; 0: none. */
  readonly protection: number;
  /** Blocks that were never written, or were deallocated, read as zeros. */
  readonly unwrittenZeros: boolean;
}

export const commands = {
  identifyController: (): Command => ({ opcode: IDENTIFY, dwords: [1] }),
  identifyNamespace: (namespace: number): Command => ({ opcode: IDENTIFY, namespace, dwords: [0] }),
  /** Asks for I/O queues; the answer has how many there are, less one. */
  setQueues: (pairs: number): Command => ({
    opcode: 0x09,
    dwords: [0x07, ((pairs - 1) << 16) | (pairs - 1)],
  }),
  /** Physically contiguous; with interrupts where there is a vector. */
  createCompletionQueue: (id: number, entries: number, vector: number | undefined): Command => ({
    opcode: 0x05,
    dwords: [((entries - 1) << 16) | id, vector === undefined ? 1 : (vector << 16) | 3].map(unsigned),
  }),
  createSubmissionQueue: (id: number, entries: number): Command => ({
    opcode: 0x01,
    dwords: [((entries - 1) << 16) | id, (id << 16) | 1].map(unsigned),
  }),
  abort: (queue: number, command: number): Command => ({
    opcode: 0x08,
    dwords: [unsigned((command << 16) | queue)],
  }),
  asyncEvent: (): Command => ({ opcode: 0x0c }),
  /** `bytes`: a multiple of 4. */
  getLogPage: (page: number, bytes: number): Command => ({
    opcode: 0x02,
    namespace: ALL_NAMESPACES,
    dwords: [unsigned((((bytes / 4 - 1) & 0xffff) << 16) | page)],
  }),
  flush: (namespace: number): Command => ({ opcode: 0x00, namespace }),
  write: (namespace: number, lba: number, blocks: number): Command => transfer(0x01, namespace, lba, blocks),
  read: (namespace: number, lba: number, blocks: number): Command => transfer(0x02, namespace, lba, blocks),
  writeZeroes: (namespace: number, lba: number, blocks: number): Command =>
    transfer(0x08, namespace, lba, blocks),
  /** Its data is one range: see deallocation(). */
  deallocate: (namespace: number): Command => ({ opcode: 0x09, namespace, dwords: [0, 1 << 2] }),
} as const;

function unsigned(value: number): number {
  return value >>> 0;
}

function transfer(opcode: number, namespace: number, lba: number, blocks: number): Command {
  return { opcode, namespace, dwords: [lba % 2 ** 32, Math.floor(lba / 2 ** 32), blocks - 1] };
}

/** The range of a Dataset Management command: attributes, length, start. */
export function writeRange(bytes: Uint8Array, lba: number, blocks: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(0, 0, true);
  view.setUint32(4, blocks, true);
  view.setBigUint64(8, BigInt(lba), true);
}

export function parseController(bytes: Uint8Array): ControllerIdentity {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const text = (at: number, length: number) =>
    String.fromCharCode(...bytes.subarray(at, at + length)).replace(/[ \0]+$/, '');
  const transferPower = bytes[77];
  const optional = view.getUint16(520, true);
  return {
    serial: text(4, 20),
    model: text(24, 40),
    firmware: text(64, 8),
    // In units of the smallest page, which the driver has made sure is 4096 bytes.
    maxTransfer: transferPower === 0 ? Infinity : 4096 * 2 ** transferPower,
    namespaces: view.getUint32(516, true),
    datasetManagement: (optional & (1 << 2)) !== 0,
    writeZeroes: (optional & (1 << 3)) !== 0,
    // VWC, bits 2:1.
    flushAll: ((bytes[525] >>> 1) & 3) === 3,
  };
}

export function parseNamespace(bytes: Uint8Array): NamespaceIdentity {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  // Of the formats that there are, the one in use: the low four bits of FLBAS.
  const format = 128 + 4 * (bytes[26] & 15);
  return {
    blocks: Number(view.getBigUint64(0, true)),
    blockSize: 2 ** bytes[format + 2],
    metadata: view.getUint16(format, true),
    extended: (bytes[26] & 0x10) !== 0,
    // DPS and DLFEAT, the low three bits of each.
    protection: bytes[29] & 7,
    unwrittenZeros: (bytes[33] & 7) === 1,
  };
}
