/**
 * Registers of Intel's Data Streaming Accelerator, as far as the driver needs them: BAR 0. Offsets and fields are those of
 * Linux's drivers/dma/idxd/registers.h.
 */
import { defineRegisters } from 'iommufd';

export const VENDOR_ID = 0x8086;
export const DEVICE_ID = 0x0b25;

export const DSA = defineRegisters({
  VERSION: { offset: 0x00, width: 32, access: 'ro', fields: { MINOR: [7, 0], MAJOR: [15, 8] } },
  GENCAP: {
    offset: 0x10,
    width: 64,
    access: 'ro',
    fields: { BLOCK_ON_FAULT: 0, OVERLAP_COPY: 1, MAX_TRANSFER: [20, 16], MAX_BATCH: [24, 21] },
  },
  WQCAP: {
    offset: 0x20,
    width: 64,
    access: 'ro',
    fields: { TOTAL: [15, 0], WQS: [23, 16], CONFIG_SIZE: [27, 24] },
  },
  ENGCAP: { offset: 0x38, width: 64, access: 'ro', fields: { ENGINES: [7, 0] } },
  /** A bit for each opcode that there is. */
  OPCAP: { offset: 0x40, width: 64, access: 'ro' },
  /** Where the tables are, in units of 256 bytes. */
  TABLES: {
    offset: 0x60,
    width: 64,
    access: 'ro',
    fields: { GROUPS: [15, 0], WQS: [31, 16], VECTORS: [47, 32] },
  },
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
  SWERR: {
    offset: 0xc0,
    width: 64,
    access: 'w1c',
    fields: { VALID: 0, OVERFLOW: 1, WRITE: 5, ERROR: [15, 8], WQ: [23, 16], OPERATION: [39, 32] },
  },
  SWERR_ADDRESS: { offset: 0xd0, width: 64, access: 'ro' },
});

export const TABLE_UNIT = 256;

/** One entry of the table of groups. */
export const GROUP = defineRegisters({
  WQS: { offset: 0x00, width: 64 },
  ENGINES: { offset: 0x20, width: 64 },
});

/** One entry of the table of work queues. */
export const WORK_QUEUE = defineRegisters({
  SIZE: { offset: 0x00, width: 32 },
  THRESHOLD: { offset: 0x04, width: 32 },
  MODE: {
    offset: 0x08,
    width: 32,
    fields: { DEDICATED: 0, BLOCK_ON_FAULT: 1, PRIORITY: [7, 4], PASID: [27, 8], PASID_ENABLE: 28 },
  },
  LIMITS: { offset: 0x0c, width: 32, fields: { MAX_TRANSFER: [4, 0], MAX_BATCH: [8, 5] } },
});

/** One entry of the table that says which PASID may use an MSI-X vector. */
export const VECTOR = defineRegisters({
  PERMISSION: { offset: 0, width: 32, fields: { PASID_ENABLE: 3, PASID: [31, 12] } },
});
export const VECTOR_BYTES = 8;

export const ENABLED = 1;
export const COMMANDS = { ENABLE_DEVICE: 1, RESET_DEVICE: 5, ENABLE_WQ: 6, ABORT_WQ: 9 } as const;
