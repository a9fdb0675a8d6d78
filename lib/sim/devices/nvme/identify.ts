/** Identify data structures. NVM Express 1.4, 5.15. */
import type { Metadata, Namespace, NvmeConfig } from './config';
import { METADATA_BYTES } from './protection';
import { VERSION } from './registers';

export const IDENTIFY_BYTES = 4096;
/** Controller or Namespace Structure (figure 244). */
export const CNS = { NAMESPACE: 0, CONTROLLER: 1, ACTIVE_NAMESPACES: 2, DESCRIPTORS: 3 } as const;

/** 0's based values: commands of each kind that may be outstanding, and entries of the error log. */
export const ABORT_LIMIT = 3;
export const EVENT_LIMIT = 3;
export const ERROR_LOG_ENTRIES = 63;
/** Kelvin: where a warning is due, and where it is critical. */
export const WARNING_TEMPERATURE = 343;
const CRITICAL_TEMPERATURE = 353;

export const MODEL = 'iommufd simulated NVMe controller';
export const FIRMWARE = '1.0';

/** Log Page Attributes: extended data, that is offsets and lengths of 32 bits (figure 247, byte 261). */
const LPA = 1 << 2;
/** Optional NVM commands: dataset management, write zeroes. */
const ONCS = (1 << 2) | (1 << 3);
/** A volatile write cache is present; Flush takes the broadcast namespace. */
const VWC = 0b111;
/** SGLs without alignment; they may be longer than the data; metadata at any byte, or where an SGL descriptor says. */
const SGLS = 1 | (1 << 17) | (1 << 18) | (1 << 20);
/** Entry sizes, required and maximum, as powers of two. */
const SQES = 0x66;
const CQES = 0x44;
/** Deallocated blocks read as zeros; write zeroes may deallocate (figure 245, byte 33). */
const DLFEAT = 0b1001;
/** Protection information is in the last eight bytes of the metadata: in all of them (byte 28). */
const PROTECTION_LAST = 1 << 4;

/** ASCII, padded with spaces (1.5). */
export function writeText(bytes: Uint8Array, at: number, length: number, text: string): void {
  bytes.fill(0x20, at, at + length);
  for (let i = 0; i < Math.min(length, text.length); i++) bytes[at + i] = text.charCodeAt(i);
}

/** Figure 247. */
export function identifyController(
  config: NvmeConfig,
  ids: { readonly vendor: number; readonly subsystem: number },
): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ids.vendor, true);
  view.setUint16(2, ids.subsystem, true);
  writeText(bytes, 4, 20, config.serial);
  writeText(bytes, 24, 40, MODEL);
  writeText(bytes, 64, 8, FIRMWARE);
  bytes[77] = config.transferPower;
  view.setUint32(80, VERSION, true);
  bytes[111] = 1; // an I/O controller
  bytes[258] = ABORT_LIMIT;
  bytes[259] = EVENT_LIMIT;
  bytes[260] = (1 << 1) | 1; // one firmware slot, which is read-only
  bytes[261] = LPA;
  bytes[262] = ERROR_LOG_ENTRIES;
  view.setUint16(266, WARNING_TEMPERATURE, true);
  view.setUint16(268, CRITICAL_TEMPERATURE, true);
  bytes[512] = SQES;
  bytes[513] = CQES;
  view.setUint32(516, config.namespaces.length, true);
  view.setUint16(520, ONCS, true);
  bytes[525] = VWC;
  view.setUint32(536, SGLS, true);
  const name = `nqn.2014-08.org.nvmexpress:uuid:iommufd-${config.serial}`;
  for (let i = 0; i < name.length; i++) bytes[768 + i] = name.charCodeAt(i);
  return bytes;
}

/** Figure 245: one LBA format. */
export function identifyNamespace(namespace: Namespace): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(namespace.blocks), true);
  bytes[33] = DLFEAT;
  bytes.set(nguid(namespace), 104);
  if (namespace.metadata) describeMetadata(bytes, namespace.metadata);
  bytes[128 + 2] = Math.log2(namespace.blockSize);
  return bytes;
}

/** FLBAS, MC, DPC and DPS, bytes 26 to 29: what the namespace has is all that it is capable of. */
function describeMetadata(bytes: Uint8Array, { protection, extended }: Metadata): void {
  new DataView(bytes.buffer).setUint16(128, METADATA_BYTES, true);
  bytes[26] = extended ? 0x10 : 0;
  bytes[27] = extended ? 1 : 2;
  if (protection === 0) return;
  bytes[28] = (1 << (protection - 1)) | PROTECTION_LAST;
  bytes[29] = protection;
}

/** Identifiers of namespaces above `after`, ascending (5.15.2.3). */
export function activeNamespaces(namespaces: readonly Namespace[], after: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(bytes.buffer);
  const ids = namespaces.map(({ id }) => id).filter((id) => id > after);
  ids.slice(0, IDENTIFY_BYTES / 4).forEach((id, i) => view.setUint32(4 * i, id, true));
  return bytes;
}

/** Figure 249: a descriptor of type 2, the NGUID; a length of 0 ends the list. */
export function namespaceDescriptors(namespace: Namespace): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  bytes.set([2, 16]);
  bytes.set(nguid(namespace), 4);
  return bytes;
}

function nguid({ id }: Namespace): Uint8Array {
  const bytes = new Uint8Array(16);
  writeText(bytes, 0, 12, 'iommufd-nvme');
  new DataView(bytes.buffer).setUint32(12, id, false);
  return bytes;
}
