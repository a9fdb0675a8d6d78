/**
 * Registers of a data streaming accelerator, as Intel DSA has them: offsets, fields and numbers are those that Linux
 * publishes in drivers/dma/idxd/registers.h. BAR 0 has the registers, BAR 2 the portals.
 */
import { defineRegisters } from '../../../register-map';
import { OPCODE } from './descriptor';

export const DSA_VENDOR_ID = 0x8086;
/** Sapphire Rapids'. */
export const DSA_DEVICE_ID = 0x0b25;

/** What there is of each. */
export const WORK_QUEUES = 8;
export const GROUPS = 4;
export const ENGINES = 4;
/** Entries of all work queues. */
export const TOTAL_ENTRIES = 128;
/** Vector 0 is for commands and errors, the others for completions. */
export const VECTORS = 9;
/** Bytes of a transfer, and descriptors of a batch, at most: powers of two. */
export const MAX_TRANSFER_SHIFT = 31;
export const MAX_BATCH_SHIFT = 10;

/** Four pages for each work queue: two of them for interrupts from its MSI-X table, of which the second is limited. */
export const PORTAL_BYTES = 4096;
export const PORTALS = 4;

/** Where the tables are, in units of 256 bytes. */
export const TABLE_UNIT = 0x100;
const TABLES = { GROUP: 0x4, WORK_QUEUE: 0x5, PERMISSION: 0x6 };
export const GROUP_TABLE = TABLES.GROUP * TABLE_UNIT;
export const WORK_QUEUE_TABLE = TABLES.WORK_QUEUE * TABLE_UNIT;
export const PERMISSION_TABLE = TABLES.PERMISSION * TABLE_UNIT;
export const GROUP_BYTES = 64;
/** WQCAP.WQCFG_SIZE 0: 2^5. */
export const WORK_QUEUE_BYTES = 32;

/** GENSTS.STATE, and the state of a work queue but for HALT. */
export const STATE = { DISABLED: 0, ENABLED: 1, DRAIN: 2, HALT: 3 } as const;
/** GENSTS.RESET_TYPE of a function level reset. */
export const RESET_BY_FUNCTION = 1;

/** INTCAUSE. */
export const CAUSE = { ERROR: 1, COMMAND: 2 } as const;

export const COMMAND = {
  ENABLE_DEVICE: 1,
  DISABLE_DEVICE: 2,
  DRAIN_ALL: 3,
  ABORT_ALL: 4,
  RESET_DEVICE: 5,
  ENABLE_WQ: 6,
  DISABLE_WQ: 7,
  DRAIN_WQ: 8,
  ABORT_WQ: 9,
  RESET_WQ: 10,
  DRAIN_PASID: 11,
  ABORT_PASID: 12,
} as const;
/** CMDCAP: a bit for each command that there is. Interrupt handles need not be requested: they are MSI-X vectors. */
const COMMANDS = Object.values(COMMAND).reduce((bits, command) => bits | (1 << command), 0);

/** CMDSTS.ERR. */
export const COMMAND_ERROR = {
  SUCCESS: 0,
  INVALID_COMMAND: 0x01,
  INVALID_WQ: 0x02,
  DEVICE_ENABLED: 0x10,
  CONFIGURATION: 0x11,
  BUS_MASTER: 0x12,
  WQ_SIZES: 0x14,
  /** The published header has four of these, and not what tells them apart. Here: a work queue is in several groups; */
  GROUP_WQ: 0x15,
  /** an engine is; */
  GROUP_ENGINE: 0x16,
  /** a group has work queues or engines alone; */
  GROUP_HALF: 0x17,
  /** a group has what there is not. */
  GROUP_UNKNOWN: 0x18,
  DEVICE_NOT_ENABLED: 0x20,
  WQ_ENABLED: 0x21,
  WQ_SIZE: 0x22,
  WQ_PRIORITY: 0x23,
  WQ_MODE: 0x24,
  BLOCK_ON_FAULT: 0x25,
  PASID_ENABLE: 0x26,
  MAX_BATCH: 0x27,
  MAX_TRANSFER: 0x28,
  DISABLE_NOT_ENABLED: 0x31,
  WQ_DEVICE_NOT_ENABLED: 0x32,
} as const;

/** Operations there are: the bits of OPCAP. */
const OPERATIONS = Object.values<number>(OPCODE).reduce((bits, opcode) => bits | (1 << opcode), 0);

/** Block on fault, copies that overlap, cache control (memory), CMDCAP; configuration is possible. */
const GENERAL =
  0x7n | (1n << 4n) | (BigInt(MAX_TRANSFER_SHIFT) << 16n) | (BigInt(MAX_BATCH_SHIFT) << 21n) | (1n << 31n);
/** Both modes; for each queue ATS, priority, occupancy, PRS. */
const QUEUES = BigInt(TOTAL_ENTRIES) | (BigInt(WORK_QUEUES) << 16n) | (0x1fn << 48n) | (1n << 55n);
const OFFSETS =
  BigInt(TABLES.GROUP) | (BigInt(TABLES.WORK_QUEUE) << 16n) | (BigInt(TABLES.PERMISSION) << 32n);

export const DSA_REGISTERS = defineRegisters({
  VERSION: { offset: 0x00, width: 32, access: 'ro', reset: 0x100 },
  GENCAP: { offset: 0x10, width: 64, access: 'ro', reset: GENERAL },
  WQCAP: { offset: 0x20, width: 64, access: 'ro', reset: QUEUES },
  GRPCAP: { offset: 0x30, width: 64, access: 'ro', reset: GROUPS },
  ENGCAP: { offset: 0x38, width: 64, access: 'ro', reset: ENGINES },
  OPCAP: { offset: 0x40, width: 64, access: 'ro', reset: OPERATIONS },
  OPCAP_HIGH: { offset: 0x48, width: 64, access: 'ro', count: 3 },
  OFFSETS: { offset: 0x60, width: 64, access: 'ro', reset: OFFSETS },
  OFFSETS_HIGH: { offset: 0x68, width: 64, access: 'ro' },
  GENCFG: { offset: 0x80, width: 32 },
  GENCTRL: { offset: 0x88, width: 32, fields: { ERROR_INTERRUPT: 0, HALT_INTERRUPT: 1 } },
  GENSTS: { offset: 0x90, width: 32, access: 'ro', fields: { STATE: [1, 0], RESET_TYPE: [3, 2] } },
  INTCAUSE: { offset: 0x98, width: 32, access: 'w1c' },
  CMD: {
    offset: 0xa0,
    width: 32,
    access: 'wo',
    fields: { OPERAND: [19, 0], COMMAND: [24, 20], INTERRUPT: 31 },
  },
  CMDSTS: { offset: 0xa8, width: 32, access: 'ro', fields: { ERROR: [7, 0], RESULT: [23, 8], ACTIVE: 31 } },
  CMDCAP: { offset: 0xb0, width: 32, access: 'ro', reset: COMMANDS },
  SWERR: {
    offset: 0xc0,
    width: 64,
    access: 'w1c',
    fields: {
      VALID: 0,
      OVERFLOW: 1,
      DESCRIPTOR_VALID: 2,
      WQ_VALID: 3,
      BATCH: 4,
      WRITE: 5,
      PRIVILEGED: 6,
      ERROR: [15, 8],
      WQ: [23, 16],
      OPERATION: [39, 32],
      PASID: [59, 40],
    },
  },
  SWERR_MORE: {
    offset: 0xc8,
    width: 64,
    access: 'ro',
    fields: { BATCH_INDEX: [15, 0], INVALID_FLAGS: [63, 32] },
  },
  SWERR_ADDRESS: { offset: 0xd0, width: 64, access: 'ro' },
  SWERR_RESERVED: { offset: 0xd8, width: 64, access: 'ro' },
});

/** Of one group (GRPCFG): a bit for each work queue and each engine in it. */
export const GROUP_CONFIG = defineRegisters({
  WQS: { offset: 0x00, width: 64, count: 4 },
  ENGINES: { offset: 0x20, width: 64 },
  FLAGS: { offset: 0x28, width: 64 },
});

/** Of one work queue (WQCFG). */
export const WORK_QUEUE_CONFIG = defineRegisters({
  SIZE: { offset: 0x00, width: 32, fields: { ENTRIES: [15, 0] } },
  THRESHOLD: { offset: 0x04, width: 32, fields: { ENTRIES: [15, 0] } },
  MODE: {
    offset: 0x08,
    width: 32,
    fields: {
      DEDICATED: 0,
      BLOCK_ON_FAULT: 1,
      ATS_DISABLE: 2,
      PRS_DISABLE: 3,
      PRIORITY: [7, 4],
      PASID: [27, 8],
      PASID_ENABLE: 28,
      PRIVILEGED: 29,
    },
  },
  LIMITS: { offset: 0x0c, width: 32, fields: { MAX_TRANSFER: [4, 0], MAX_BATCH: [8, 5] } },
  OCCUPANCY_HANDLE: { offset: 0x10, width: 32 },
  OCCUPANCY_LIMIT: { offset: 0x14, width: 32 },
  /** MODE_SUPPORT: both modes are there. */
  STATUS: {
    offset: 0x18,
    width: 32,
    access: 'ro',
    fields: { OCCUPANCY: [15, 0], MODE_SUPPORT: 29, STATE: [31, 30] },
  },
});

/** Which PASID's descriptors may use an MSI-X vector (MSIXPERM). */
export const VECTOR_PERMISSION = defineRegisters({
  PERMISSION: {
    offset: 0,
    width: 32,
    count: VECTORS,
    stride: 8,
    fields: { IGNORE: 2, PASID_ENABLE: 3, PASID: [31, 12] },
  },
});
