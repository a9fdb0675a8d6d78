/** The registers of an NVMe controller: BAR 0. NVM Express 1.4, chapter 3. */
import { defineRegisters } from 'iommufd';

export const NVME = defineRegisters({
  CAP: {
    offset: 0x00,
    width: 64,
    access: 'ro',
    fields: {
      /** Entries of the largest queue, less one. */
      MQES: [15, 0],
      /** How long CSTS.RDY may take, in units of 500 ms. */
      TO: [31, 24],
      /** Doorbells are 4 << DSTRD bytes apart. */
      DSTRD: [35, 32],
      /** The smallest page is 4096 << MPSMIN bytes. */
      MPSMIN: [51, 48],
    },
  },
  VS: {
    offset: 0x08,
    width: 32,
    access: 'ro',
    fields: { TERTIARY: [7, 0], MINOR: [15, 8], MAJOR: [31, 16] },
  },
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
  CSTS: { offset: 0x1c, width: 32, access: 'ro', fields: { RDY: 0, CFS: 1, SHST: [3, 2] } },
  /** Entries of the admin queues, less one. */
  AQA: { offset: 0x24, width: 32, fields: { ASQS: [11, 0], ACQS: [27, 16] } },
  ASQ: { offset: 0x28, width: 64 },
  ACQ: { offset: 0x30, width: 64 },
});

/** Where the first doorbell is. */
export const DOORBELLS = 0x1000;

/** Where the others are is known when CAP.DSTRD is. `queues`: how many pairs, the admin queues among them. */
export function doorbells(stride: number, queues: number) {
  const distance = 4 << stride;
  return defineRegisters({
    SQ_TAIL: { offset: DOORBELLS, width: 32, access: 'wo', count: queues, stride: 2 * distance },
    CQ_HEAD: { offset: DOORBELLS + distance, width: 32, access: 'wo', count: queues, stride: 2 * distance },
  });
}
