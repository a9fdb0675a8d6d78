/**
 * Registers of the channel engine (PCI ID 1234:11eb): DMA engines behind one function, made to be handed out one by one.
 *
 * BAR 0 has a page for each channel: the registers of a DMA engine (dma-engine-registers.ts). BAR 2 has a page for each
 * channel: its portal, which takes commands of 64 bytes as deferrable memory writes (PCIe 6.0, section 6.32) and nothing
 * else. BAR 4 is the driver's, 16 bytes for each channel; others than the driver must not reach it:
 *
 * | Offset | Name          | Bytes | Access | Meaning                                                                     |
 * | ------ | ------------- | ----- | ------ | --------------------------------------------------------------------------- |
 * | 0x0    | DEFAULT_PASID | 4     | RW     | 19:0 PASID, 31 valid: what requests that name no PASID carry; resets the channel |
 * | 0x4    | ABORT_PASID   | 4     | W      | 19:0: ends the commands with this PASID, those that wait too                 |
 * | 0x8    | RESET         | 4     | W      | bit 0: the channel starts afresh, with its DEFAULT_PASID                     |
 * | 0xc    | WAITING       | 4     | R      | commands in the portal's queue                                              |
 *
 * A command, as ENQCMD sends it (little-endian):
 *
 * | Bytes  | Meaning                                                                              |
 * | ------ | ------------------------------------------------------------------------------------ |
 * | 0-3    | 19:0 PASID, put there by the processor; 31 privileged, ignored                                |
 * | 4-7    | what a DMA engine's CONTROL takes: operation (COPY or FILL) and flags                |
 * | 8-15   | where its end is told: 4 bytes, 1 for success, else 0x100 plus the error code; 0: not |
 * | 16-23  | SOURCE                                                                               |
 * | 24-31  | DESTINATION                                                                          |
 * | 32-35  | LENGTH                                                                               |
 * | 36-39  | PATTERN                                                                              |
 */
export const CHANNEL_ENGINE_VENDOR_ID = 0x1234;
export const CHANNEL_ENGINE_DEVICE_ID = 0x11eb;

export const CHANNEL_PAGE = 4096;
/** Commands a portal holds, the one that runs included; then it says "retry". */
export const PORTAL_DEPTH = 4;

/** BAR 4, within the 16 bytes of a channel. */
export const channelControl = { DEFAULT_PASID: 0x0, ABORT_PASID: 0x4, RESET: 0x8, WAITING: 0xc } as const;
export const CHANNEL_CONTROL_BYTES = 16;
export const DEFAULT_PASID_VALID = 0x80000000;

/** Offsets in a command. */
export const channelCommand = {
  PASID: 0,
  CONTROL: 4,
  COMPLETION: 8,
  SOURCE: 16,
  DESTINATION: 24,
  LENGTH: 32,
  PATTERN: 36,
} as const;
export const COMMAND_BYTES = 64;

/** What is written to the completion address. */
export const COMPLETION_SUCCESS = 1;
export const COMPLETION_ERROR = 0x100;
