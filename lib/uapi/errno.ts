/**
 * Linux's errno numbers (asm-generic/errno-base.h, errno.h) under the names a user of this uAPI knows.
 * Node has a table of its own, but on Node 20 it calls 95 ENOTSUP, and off Linux its numbers differ.
 */
export const errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  EBADFD: 77,
  EOVERFLOW: 75,
  EUSERS: 87,
  EADDRINUSE: 98,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
  ESTALE: 116,
  ECANCELED: 125,
} as const;

/** A name such as 'EINVAL'. */
export type Errno = keyof typeof errno;

const names = new Map<number, Errno>(Object.entries(errno).map(([name, n]) => [n, name as Errno]));

/** The name of an errno number (positive or negative), or `errno N` where this table has none. */
export function errnoName(n: number): string {
  return names.get(Math.abs(n)) ?? `errno ${Math.abs(n)}`;
}
