/** Sizes of the memory that sequences have, in bytes. */

/** Memory for mappings; its address is a multiple of 2 MiB. */
export const DATA_BYTES = 4 * 2 ** 20;
/** Memory that pointers in structs point to. */
export const SCRATCH_BYTES = 2 ** 20;
/** Memory with a descriptor; its address is a multiple of 2 MiB. */
export const MEMFD_BYTES = 2 * 2 ** 20;
/** Memory of the ioctl's own struct, the last byte of which is 0xff. */
export const ARGUMENT_BYTES = 16384;
