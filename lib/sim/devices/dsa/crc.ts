/** CRC-32C, polynomial 0x11edc6f41, as the accelerator's operations compute it. */

/** How bits are ordered. Both false: the CRC that iSCSI has (RFC 3720, section 12.1), if the seed is 0. */
export interface CrcStyle {
  /** Seed and result are neither inverted nor reflected. */
  readonly plainCrc: boolean;
  /** Bit 7 of a byte comes first. */
  readonly plainData: boolean;
}

/** The polynomial with its bits in the other order, without the highest. */
const REFLECTED = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? REFLECTED : 0);
  return value;
});

/** The other order of `bits` bits. */
function reflect(value: number, bits: number): number {
  let reflected = 0;
  for (let bit = 0; bit < bits; bit++) reflected = (reflected << 1) | ((value >>> bit) & 1);
  return reflected >>> 0;
}

/** The CRC of bytes that follow those whose CRC `seed` is. */
export function crc32c(bytes: Uint8Array, seed: number, { plainCrc, plainData }: CrcStyle): number {
  const outside = (value: number) => (plainCrc ? reflect(value, 32) : ~value);
  let value = outside(seed);
  for (const byte of bytes)
    value = (value >>> 8) ^ TABLE[(value ^ (plainData ? reflect(byte, 8) : byte)) & 0xff];
  return outside(value) >>> 0;
}
