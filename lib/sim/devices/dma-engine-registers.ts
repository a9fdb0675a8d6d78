/**
 * Registers of the DMA engine (PCI ID 1234:11ea): BAR 0, 4 KiB. Its MSI-X table and pending bits are in BAR 2, at
 * 0x000 and 0x800. Accesses are 4 or 8 bytes wide, in the buffer also 1 or 2; others read as zero and write nothing.
 *
 * | Offset | Name             | Bytes | Access | Meaning                                                              |
 * | ------ | ---------------- | ----- | ------ | -------------------------------------------------------------------- |
 * | 0x000  | ID               | 4     | R      | 0x00d3a001                                                           |
 * | 0x008  | SOURCE           | 8     | RW     | address to read                                                      |
 * | 0x010  | DESTINATION      | 8     | RW     | address to write                                                     |
 * | 0x018  | LENGTH           | 4     | RW     | bytes: 1 to 16 MiB, for READ and WRITE to 2 KiB                      |
 * | 0x01c  | PASID            | 4     | RW     | 19:0 PASID; 31 requests carry it                                     |
 * | 0x020  | CONTROL          | 4     | RW     | 0 START, 1 ABORT (read as 0), 5:4 operation, 8 to 13 flags           |
 * | 0x024  | STATUS           | 4     | R, W1C | 0 BUSY, 1 DONE (write 1 to clear), 2 WAITING, 3 FAULT_WRITE, 15:8 error |
 * | 0x028  | FAULT_ADDRESS    | 8     | R      | where the access that ended the command began                        |
 * | 0x030  | COMPLETED        | 4     | R      | bytes transferred                                                    |
 * | 0x034  | PREFETCH         | 4     | RW     | 7:0 pages asked for in one page request group; 0 is 1                |
 * | 0x038  | PATTERN          | 4     | RW     | what FILL writes, repeated, low byte first                           |
 * | 0x03c  | INTERRUPT_ENABLE | 4     | RW     | 0: vector 0 when a command succeeds, 1: vector 1 when it fails       |
 * | 0x040  | TRANSLATIONS     | 4     | R      | translation requests since reset                                     |
 * | 0x044  | CACHE_HITS       | 4     | R      | translations found in the cache since reset                          |
 * | 0x048  | PAGE_REQUESTS    | 4     | R      | page requests since reset                                            |
 * | 0x04c  | INVALIDATIONS    | 4     | R      | invalidate requests since reset                                      |
 * | 0x800  | BUFFER           | 2048  | RW     | what READ fills and WRITE sends                                      |
 *
 * While BUSY is set, only ABORT, DONE, INTERRUPT_ENABLE and the buffer can be written.
 */
export const DMA_ENGINE_ID = 0x00d3a001;
export const DMA_ENGINE_VENDOR_ID = 0x1234;
export const DMA_ENGINE_DEVICE_ID = 0x11ea;

export const dmaEngine = {
  ID: 0x000,
  SOURCE: 0x008,
  DESTINATION: 0x010,
  LENGTH: 0x018,
  PASID: 0x01c,
  CONTROL: 0x020,
  STATUS: 0x024,
  FAULT_ADDRESS: 0x028,
  COMPLETED: 0x030,
  PREFETCH: 0x034,
  PATTERN: 0x038,
  INTERRUPT_ENABLE: 0x03c,
  TRANSLATIONS: 0x040,
  CACHE_HITS: 0x044,
  PAGE_REQUESTS: 0x048,
  INVALIDATIONS: 0x04c,
  BUFFER: 0x800,
} as const;

export const DMA_ENGINE_BUFFER_SIZE = 2048;
export const DMA_ENGINE_MAXIMUM_LENGTH = 1 << 24;

// PASID
export const PASID_VALUE = 0xfffff;
export const PASID_ENABLE = 0x80000000;

// CONTROL
export const CONTROL_START = 1 << 0;
export const CONTROL_ABORT = 1 << 1;
export const CONTROL_OPERATION = 3 << 4;
/** SOURCE to DESTINATION. */
export const OPERATION_COPY = 0 << 4;
/** PATTERN to DESTINATION. */
export const OPERATION_FILL = 1 << 4;
/** SOURCE to BUFFER. */
export const OPERATION_READ = 2 << 4;
/** BUFFER to DESTINATION. */
export const OPERATION_WRITE = 3 << 4;
/** Translate each page through ATS and send translated requests; otherwise untranslated ones. */
export const CONTROL_ATS = 1 << 8;
/** Ask for a page without permission with a page request; otherwise the command ends with NO_ACCESS. */
export const CONTROL_PAGE_REQUESTS = 1 << 9;
/** Requests are in privileged mode. Needs a PASID. */
export const CONTROL_PRIVILEGED = 1 << 10;
/** The source is read as instructions. Needs a PASID. */
export const CONTROL_EXECUTE = 1 << 11;
/** Source pages are translated for writing too (NW = 0), as before a later write to them. */
export const CONTROL_REQUEST_WRITE = 1 << 12;
/** Reads and writes have the No Snoop attribute, where Device Control and the translation let them. */
export const CONTROL_NO_SNOOP = 1 << 13;

// STATUS
export const STATUS_BUSY = 1 << 0;
/** The command has ended; the error code tells how. */
export const STATUS_DONE = 1 << 1;
/** A page request group is unanswered. */
export const STATUS_WAITING = 1 << 2;
/** The access at FAULT_ADDRESS was a write. */
export const STATUS_FAULT_WRITE = 1 << 3;
export const STATUS_ERROR_SHIFT = 8;

// Error codes
export const ERROR_NONE = 0;
/** Software wrote ABORT. */
export const ERROR_ABORTED = 1;
/** The root refused a read or a write. */
export const ERROR_REFUSED = 2;
/** A translation request was answered with Unsupported Request or Completer Abort. */
export const ERROR_TRANSLATION = 3;
/** The translation does not permit the access, and page requests are off or did not help. */
export const ERROR_NO_ACCESS = 4;
/** A page request could not be sent. */
export const ERROR_PAGE_REQUEST = 5;
/** The page request group was answered with Invalid Request. */
export const ERROR_PAGE_INVALID = 6;
/** It was answered with Response Failure; the page request interface is off now. */
export const ERROR_PAGE_FAILURE = 7;
/** LENGTH, an address range or a combination of flags is not possible. */
export const ERROR_COMMAND = 8;

// INTERRUPT_ENABLE
export const INTERRUPT_SUCCESS = 1 << 0;
export const INTERRUPT_ERROR = 1 << 1;
