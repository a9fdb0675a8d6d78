/**
 * Calls through the seam: structs encoded and decoded, EINTR retried, negative results thrown. Nothing else
 * in this package calls Kernel.ioctl, read or write directly.
 */
import type { Kernel } from './kernel';
import { check, failure, type IommuError } from './errors';
import { errno, newerThan, type Ioctl, type Struct } from './uapi';

type Encoded<S extends Struct> = Parameters<S['encode']>[0];
type Decoded<S extends Struct> = ReturnType<S['decode']>;

/** What an ioctl's pointers refer to; escapes here so that no optimizer can let go of it during the call. */
const held: { during: unknown } = { during: undefined };

function retried(callOnce: () => number): number {
  let result: number;
  do result = callOnce();
  while (result === -errno.EINTR);
  return result;
}

/**
 * Makes one ioctl, its size field filled in, and returns the result and the struct as the kernel left it.
 * Never throws for a negative result. `keep` is the memory that addresses inside `values` point to.
 */
export function attempt<S extends Struct>(
  kernel: Kernel,
  fd: number,
  row: Ioctl<S>,
  values: Encoded<S>,
  keep?: unknown,
): { result: number; out: Decoded<S> } {
  const { struct } = row;
  const sized: Record<string, unknown> = { ...values };
  if ('size' in struct.fields && sized['size'] === undefined) sized['size'] = struct.size;
  if ('argsz' in struct.fields && sized['argsz'] === undefined) sized['argsz'] = struct.size;
  const bytes = struct.encode(sized as Encoded<S>);
  held.during = keep;
  const result = retried(() => kernel.ioctl(fd, row.request, bytes));
  held.during = undefined;
  return { result, out: struct.decode(bytes) as Decoded<S> };
}

/** As `attempt`, but a negative result is thrown as an IommuError. */
export function call<S extends Struct>(
  kernel: Kernel,
  fd: number,
  row: Ioctl<S>,
  values: Encoded<S>,
  keep?: unknown,
): Decoded<S> {
  const { result, out } = attempt(kernel, fd, row, values, keep);
  if (result < 0) throw refused(kernel, row, values, result);
  return out;
}

/** What a kernel answers to a request, a field or a flag that it does not know. */
const UNKNOWN: readonly number[] = [errno.ENOTTY, errno.E2BIG, errno.EOPNOTSUPP];

/** The error for an ioctl that gave `result`. Where the kernel is too old for it, the hint names the version it takes. */
export function refused(
  kernel: Kernel,
  row: { readonly name: string },
  values: Readonly<Record<string, unknown>>,
  result: number,
  more: { hint?: string | undefined; path?: string | undefined; also?: string | undefined } = {},
): IommuError {
  // VFIO answers EINVAL to unknown flags.
  const unknown = UNKNOWN.includes(-result) || (result === -errno.EINVAL && row.name.startsWith('VFIO_'));
  const newer = unknown ? newerThan(kernel.version, row.name, values) : undefined;
  const tooOld = newer && `${newer.name} needs Linux ${newer.since} or newer; this is ${kernel.version}`;
  const also = [more.also, tooOld].filter(Boolean).join('; ');
  return failure(result, { ...more, syscall: 'ioctl', request: row.name, also });
}

/** An ioctl whose argument is bytes of the caller's own making, or nothing. Returns the result, negative or not. */
export function attemptBytes(
  kernel: Kernel,
  fd: number,
  row: { request: number },
  bytes?: Uint8Array,
): number {
  return retried(() => kernel.ioctl(fd, row.request, bytes));
}

/** read(2), or a negative errno. */
export function attemptRead(kernel: Kernel, fd: number, bytes: Uint8Array): number {
  return retried(() => kernel.read(fd, bytes));
}

/** write(2), or a negative errno. */
export function attemptWrite(kernel: Kernel, fd: number, bytes: Uint8Array): number {
  return retried(() => kernel.write(fd, bytes));
}

/** pread(2): bytes read. Throws IommuError. */
export function pread(kernel: Kernel, fd: number, bytes: Uint8Array, offset: number): number {
  return check(
    retried(() => kernel.pread(fd, bytes, offset)),
    { syscall: 'pread' },
  );
}

/** pwrite(2): bytes written. Throws IommuError. */
export function pwrite(kernel: Kernel, fd: number, bytes: Uint8Array, offset: number): number {
  return check(
    retried(() => kernel.pwrite(fd, bytes, offset)),
    { syscall: 'pwrite' },
  );
}
