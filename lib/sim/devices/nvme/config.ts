/** What a controller is made with. */
import { METADATA_BYTES } from './protection';
import { MemoryStorage, type NvmeStorage } from './storage';

export interface NvmeNamespace {
  readonly storage: NvmeStorage;
  /** Bytes of a logical block: 512 (default) to 4096, a power of two. */
  readonly blockSize?: number;
  /**
   * Where the 8 bytes of metadata that each block has are kept: as many times 8 bytes as there are blocks, at least. Default:
   * in memory where the namespace is protected; otherwise there is no metadata.
   */
  readonly metadata?: NvmeStorage;
  /** End-to-end data protection of this type, in the metadata. Default 0: none. */
  readonly protection?: ProtectionType;
  /** Metadata comes in one buffer with the data, after that of each block. Default false: it has a buffer of its own. */
  readonly extended?: boolean;
}

export type ProtectionType = 0 | 1 | 2 | 3;

/** Metadata of blocks, 8 bytes of each. */
export interface Metadata {
  readonly storage: NvmeStorage;
  readonly protection: ProtectionType;
  readonly extended: boolean;
}

export interface NvmeOptions {
  /** Namespaces 1, 2 …; default: one of 64 MiB in memory, with blocks of 512 bytes. */
  readonly namespaces?: readonly NvmeNamespace[];
  /** I/O queues, of each kind. Default 8, 1 to 1023. */
  readonly ioQueues?: number;
  /** MSI-X vectors. Default: one more than there are I/O queues. */
  readonly vectors?: number;
  /** Entries of the largest queue (CAP.MQES + 1). Default 1024, 2 to 65536. */
  readonly entries?: number;
  /** CAP.DSTRD: doorbells are 4 << stride bytes apart. Default 0, at most 8. */
  readonly stride?: number;
  /** Bytes that a command may transfer, 4096 times a power of two (MDTS); 0: any number. Default 128 KiB. */
  readonly maxTransfer?: number;
  /** Serial number, 20 ASCII characters at most. */
  readonly serial?: string;
}

export interface Namespace {
  readonly id: number;
  readonly storage: NvmeStorage;
  readonly blockSize: number;
  /** Logical blocks. */
  readonly blocks: number;
  readonly metadata: Metadata | undefined;
}

/** What was written to it, data and metadata, survives the loss of power. */
export function flushNamespace({ storage, metadata }: Namespace): void {
  storage.flush();
  metadata?.storage.flush();
}

/** The options, complete and checked. */
export interface NvmeConfig {
  readonly namespaces: readonly Namespace[];
  readonly ioQueues: number;
  readonly vectors: number;
  readonly entries: number;
  readonly stride: number;
  /** MDTS: a power of two of 4096 bytes; 0 for no limit. */
  readonly transferPower: number;
  readonly serial: string;
}

const LEAST_PAGE = 4096;

function checkInteger(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${name} must be an integer from ${least} to ${most}, not ${value}`);
  return value;
}

/** Throws RangeError. */
export function configure(options: NvmeOptions): NvmeConfig {
  const { namespaces = [{ storage: new MemoryStorage(64 * 2 ** 20) }], maxTransfer = 128 * 1024 } = options;
  const { ioQueues = 8, entries = 1024, stride = 0, serial = 'iommufd' } = options;
  const { vectors = ioQueues + 1 } = options;
  const transferPower = maxTransfer === 0 ? 0 : Math.log2(maxTransfer / LEAST_PAGE);
  if (!Number.isInteger(transferPower) || (maxTransfer !== 0 && transferPower < 1))
    throw new RangeError(`maxTransfer must be 8192, 16384 … bytes, or 0, not ${maxTransfer}`);
  if (!/^[ -~]{1,20}$/.test(serial)) throw new RangeError('serial has 1 to 20 ASCII characters');
  if (namespaces.length === 0) throw new RangeError('a controller needs a namespace');
  return {
    namespaces: namespaces.map((namespace, index) => describe(namespace, index + 1)),
    ioQueues: checkInteger('ioQueues', ioQueues, 1, 1023),
    vectors: checkInteger('vectors', vectors, 1, 2048),
    entries: checkInteger('entries', entries, 2, 65536),
    stride: checkInteger('stride', stride, 0, 8),
    transferPower,
    serial,
  };
}

function describe(namespace: NvmeNamespace, id: number): Namespace {
  const { storage, blockSize = 512 } = namespace;
  if (![512, 1024, 2048, 4096].includes(blockSize))
    throw new RangeError(`blockSize must be 512, 1024, 2048 or 4096, not ${blockSize}`);
  const blocks = Math.floor(storage.size / blockSize);
  if (blocks === 0) throw new RangeError(`namespace ${id} has no whole block`);
  return { id, storage, blockSize, blocks, metadata: describeMetadata(namespace, id, blocks) };
}

function describeMetadata(namespace: NvmeNamespace, id: number, blocks: number): Metadata | undefined {
  const { metadata, protection = 0, extended = false } = namespace;
  if (![0, 1, 2, 3].includes(protection))
    throw new RangeError(`protection is of type 1, 2 or 3, or 0 for none, not ${String(protection)}`);
  if (!metadata && protection === 0) return undefined;
  const storage = metadata ?? new MemoryStorage(METADATA_BYTES * blocks);
  if (storage.size < METADATA_BYTES * blocks)
    throw new RangeError(
      `the metadata of namespace ${id} takes ${METADATA_BYTES * blocks} bytes, not ${storage.size}`,
    );
  return { storage, protection, extended };
}
