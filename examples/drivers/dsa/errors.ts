import { meaning } from './descriptor';

/**
 * EFAULT: a page was not there; EIO: the device said no; ETIMEDOUT; ECANCELED: it was interrupted, and cannot be done again;
 * ENODEV: the device is gone.
 */
export type DsaErrorCode = 'EFAULT' | 'EIO' | 'ETIMEDOUT' | 'ECANCELED' | 'ENODEV';

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

/** The error for a status that a completion record or SWERR has. */
export function statusError(name: string, status: number, address: bigint): DsaError {
  const where = address === 0n ? '' : ` (0x${address.toString(16)})`;
  const missing = status === 0x03 || status === 0x04 || status === 0x1a;
  return new DsaError(missing ? 'EFAULT' : 'EIO', `${name}: ${meaning(status)}${where}`, address);
}
