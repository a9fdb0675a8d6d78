/** Controller registers in BAR 0. NVM Express 1.4, chapter 3. */
import { defineRegisters } from '../../../register-map';

/** NVM Express 1.4.0 (3.1.2). */
export const VERSION = 0x0001_0400;
/** Where the doorbells begin (3.1.16). */
export const DOORBELLS = 0x1000;
/** The page size that CAP.MPSMIN and CAP.MPSMAX allow: 4 KiB and 64 KiB. */
const MPSMAX = 4;
/** Worst case that software waits for CSTS.RDY, in units of 500 ms (3.1.1). */
const READY_TIMEOUT = 10;

export const SHUTDOWN = { NORMAL: 1, ABRUPT: 2 } as const;
/** CSTS.SHST (3.1.6). */
export const SHUTDOWN_STATUS = { OCCURRING: 1, COMPLETE: 2 } as const;

/** CAP (3.1.1): MQES is a 0's based value; queues are contiguous (CQR); the NVM command set (CSS bit 0). */
function capabilities(entries: number, stride: number): bigint {
  return (
    BigInt(entries - 1) |
    (1n << 16n) |
    (BigInt(READY_TIMEOUT) << 24n) |
    (BigInt(stride) << 32n) |
    (1n << 37n) |
    (BigInt(MPSMAX) << 52n)
  );
}

/** `entries`: of the largest queue; `stride`: CAP.DSTRD; `queues`: submission queues, the admin queue among them. */
export function controllerRegisters(entries: number, stride: number, queues: number) {
  return defineRegisters({
    CAP: {
      offset: 0x00,
      width: 64,
      access: 'ro',
      reset: capabilities(entries, stride),
      fields: {
        MQES: [15, 0],
        CQR: 16,
        AMS: [18, 17],
        TO: [31, 24],
        DSTRD: [35, 32],
        NSSRS: 36,
        CSS: [44, 37],
        MPSMIN: [51, 48],
        MPSMAX: [55, 52],
      },
    },
    VS: { offset: 0x08, width: 32, access: 'ro', reset: VERSION },
    /** Interrupt mask set and clear: of pin-based interrupts only (3.1.3). Both read as the mask. */
    INTMS: { offset: 0x0c, width: 32 },
    INTMC: { offset: 0x10, width: 32 },
    CC: {
      offset: 0x14,
      width: 32,
      fields: {
        EN: 0,
        CSS: [6, 4],
        MPS: [10, 7],
        AMS: [13, 11],
        SHN: [15, 14],
        IOSQES: [19, 16],
        IOCQES: [23, 20],
      },
    },
    CSTS: {
      offset: 0x1c,
      width: 32,
      access: 'ro',
      fields: { RDY: 0, CFS: 1, SHST: [3, 2], NSSRO: 4, PP: 5 },
    },
    /** Queue sizes are 0's based values. */
    AQA: { offset: 0x24, width: 32, fields: { ASQS: [11, 0], ACQS: [27, 16] } },
    ASQ: { offset: 0x28, width: 64 },
    ACQ: { offset: 0x30, width: 64 },
    /** Of each queue the submission queue's tail, then the completion queue's head (3.1.16, 3.1.17). */
    DOORBELL: { offset: DOORBELLS, width: 32, access: 'wo', count: 2 * queues, stride: 4 << stride },
  });
}
