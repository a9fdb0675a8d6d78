/** The registers of QEMU's educational device, `edu`: BAR 0. QEMU, docs/specs/edu.rst. */
import { defineRegisters } from 'iommufd';

export const VENDOR_ID = 0x1234;
export const DEVICE_ID = 0x11e8;

/** Those below 0x80 take accesses of 4 bytes only. */
export const EDU = defineRegisters({
  IDENTIFICATION: {
    offset: 0x00,
    width: 32,
    access: 'ro',
    fields: { MAJOR: [31, 24], MINOR: [23, 16], MAGIC: [7, 0] },
  },
  /** Reads as the inverse of what was written. */
  LIVENESS: { offset: 0x04, width: 32 },
  /** Takes a number, and has its factorial, modulo 2^32, when STATUS.COMPUTING is clear. */
  FACTORIAL: { offset: 0x08, width: 32 },
  STATUS: { offset: 0x20, width: 32, fields: { COMPUTING: 0, INTERRUPT: 7 } },
  /** Why it interrupts: bits that stay until they are acknowledged. */
  INTERRUPT_STATUS: { offset: 0x24, width: 32, access: 'ro', fields: { FACTORIAL: 0, DMA: 8 } },
  INTERRUPT_ACKNOWLEDGE: { offset: 0x64, width: 32, access: 'wo' },
  DMA_SOURCE: { offset: 0x80, width: 64 },
  DMA_DESTINATION: { offset: 0x88, width: 64 },
  DMA_COUNT: { offset: 0x90, width: 64 },
  DMA_COMMAND: { offset: 0x98, width: 64, fields: { START: 0, TO_MEMORY: 1, INTERRUPT: 2 } },
});

/** What IDENTIFICATION.MAGIC reads. */
export const MAGIC = 0xed;
/** Where the device's own buffer is, as its DMA engine sees it; the processor cannot read it. */
export const BUFFER = 0x40000;
/** Bytes of it. */
export const BUFFER_SIZE = 4096;
