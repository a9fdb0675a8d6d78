/** Values that find mistakes: limits, what lies beside them, and addresses where nothing is. */
import type { Literal } from '../program';
import type { Random } from '../random';

const SMALL: readonly Literal[] = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 64, 0xff, 0x100];
const WORD: readonly Literal[] = [
  0x7ff, 0x800, 0xfff, 0x1000, 0x1001, 0xffff, 0x1_0000, 0x10_0000, 0x20_0000, 0x7fff_ffff, 0x8000_0000,
  0xffff_ffff, 0xffff_f000,
];
const LONG: readonly Literal[] = [
  0x1_0000_0000,
  0x1_0000_1000,
  0x7f_ffff_ffff,
  0x80_0000_0000,
  0xffff_ffff_ffff,
  '0x1000000000000',
  '0x7fffffffffffffff',
  '0x8000000000000000',
  '0xffffffffffffffff',
  '0xfffffffffffffffe',
  '0xfffffffffffff000',
  '0xffffffffffffefff',
  '0xfee00000',
  '0xfeefffff',
  '0xfedff000',
  '0xfef00000',
];

/** An integer for a field of `size` bytes. */
export function hostileInteger(random: Random, size: number): Literal {
  const kind = random.below(size > 4 ? 4 : 3);
  if (kind === 0) return random.pick(SMALL);
  if (kind === 1) return random.pick(WORD);
  if (kind === 2) return `0x${(1n << BigInt(random.below(size * 8))).toString(16)}`;
  return random.pick(LONG);
}

/** An address where no program has memory, on any kernel. */
export function hostilePointer(random: Random): Literal {
  return random.pick<Literal>([0, 1, 0x1000, 0x8000_0000_0000, 0xfff]);
}

/** Whether a field is an address: it gets no value that might be one of the running program's own. */
export function isPointer(path: string): boolean {
  return /(^|[._])(uptr|user_va|data_uptr|allowed_iovas|token_uuid_ptr|vaddr)$/.test(path) || path === 'data';
}

/** Whether a field is a file descriptor: small numbers are descriptors of the running program. */
export function isDescriptor(path: string): boolean {
  return /(^|[._])(fd|iommufd|dmabuf_fd)$/.test(path);
}
