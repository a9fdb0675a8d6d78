/** What a request rejects with. */

/**
 * EFAULT: a page was not there; EIO: the device said no; EBADMSG: a completion record makes no sense, or a result that was to
 * be verified is wrong; ETIMEDOUT; ECANCELED: it was interrupted, and cannot be done again; ENODEV: the device is gone.
 */
export type DsaErrorCode = 'EFAULT' | 'EIO' | 'EBADMSG' | 'ETIMEDOUT' | 'ECANCELED' | 'ENODEV';

export class DsaError extends Error {
  readonly code: DsaErrorCode;
  /** Where an access failed. */
  readonly address: bigint | undefined;

  constructor(code: DsaErrorCode, message: string, address?: bigint) {
    super(message);
    this.name = 'DsaError';
    this.code = code;
    this.address = address;
  }
}

const MEANINGS: Readonly<Record<number, string>> = {
  0x03: 'a page is not there',
  0x04: 'a page is not there, and will not come',
  0x06: 'the descriptor list of a batch is not there',
  0x10: 'no such operation',
  0x11: 'a flag that the operation has not',
  0x13: 'a transfer of a size that the queue does not take',
  0x14: 'a batch of a size that the queue does not take',
  0x16: 'buffers overlap',
  0x19: 'the interrupt vector is not for this PASID',
  0x1a: 'the page of the completion record is not there',
  0x20: 'an access to memory was refused',
  0x22: 'a translation was refused',
  0x80: 'the work queue did not take the descriptor',
};

function meaning(status: number): string {
  return MEANINGS[status] ?? `status 0x${status.toString(16)}`;
}

/** The error for a status that a completion record or SWERR has. */
export function statusError(name: string, status: number, address: bigint): DsaError {
  const where = address === 0n ? '' : ` (0x${address.toString(16)})`;
  const missing = status === 0x03 || status === 0x04 || status === 0x1a;
  return new DsaError(missing ? 'EFAULT' : 'EIO', `${name}: ${meaning(status)}${where}`, address);
}

/** The error for a completion record that is not as a device writes it. */
export function flawed(name: string, flaw: string): DsaError {
  return new DsaError('EBADMSG', `${name} has written a completion record that is wrong: ${flaw}`);
}
