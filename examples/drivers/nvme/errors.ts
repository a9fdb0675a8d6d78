/** How requests fail. */

/** Status of a completion: status code type << 8 | status code. NVM Express 1.4, 4.6.1. */
export const ABORTED_BY_REQUEST = 0x007;

const NAMES: Readonly<Record<number, string>> = {
  0x001: 'invalid command opcode',
  0x002: 'invalid field in command',
  0x003: 'command ID conflict',
  0x004: 'data transfer error: the device could not reach the memory of the request',
  0x005: 'aborted due to power loss notification',
  0x006: 'internal error',
  0x007: 'command abort requested',
  0x008: 'aborted due to deletion of the submission queue',
  0x00b: 'invalid namespace or format',
  0x00c: 'command sequence error',
  0x013: 'PRP offset invalid',
  0x080: 'LBA out of range',
  0x081: 'capacity exceeded',
  0x082: 'namespace not ready',
  0x100: 'completion queue invalid',
  0x101: 'invalid queue identifier',
  0x102: 'invalid queue size',
  0x103: 'abort command limit exceeded',
  0x105: 'asynchronous event request limit exceeded',
  0x108: 'invalid interrupt vector',
  0x109: 'invalid log page',
  0x10c: 'invalid queue deletion',
  0x181: 'invalid protection information',
  0x280: 'write fault',
  0x281: 'unrecovered read error',
  0x282: 'end-to-end guard check error',
  0x283: 'end-to-end application tag check error',
  0x284: 'end-to-end reference tag check error',
  0x286: 'access denied',
};

/**
 * 'EIO': the controller ended the command with `status`. 'ETIMEDOUT': it did not in time. 'ENODEV': it is gone, or does not
 * come back from a reset; nothing works any more. 'ECANCELED': the driver was closed, or the controller reset too often.
 * 'EILSEQ': of a protected namespace, what was read, or read back, is not what was written there.
 */
export type NvmeErrorCode = 'EIO' | 'ETIMEDOUT' | 'ENODEV' | 'ECANCELED' | 'EILSEQ';

export class NvmeError extends Error {
  constructor(
    readonly code: NvmeErrorCode,
    message: string,
    /** Of 'EIO'. */
    readonly status?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'NvmeError';
  }
}

/** The error of a command that ended with a status. */
export function statusError(what: string, status: number): NvmeError {
  const number = `0x${status.toString(16).padStart(3, '0')}`;
  return new NvmeError('EIO', `${what}: ${NAMES[status] ?? 'failed'} (NVMe status ${number})`, status);
}
