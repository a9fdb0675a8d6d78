/** CRC-16/T10-DIF, the guard of protection information. NVM Express 1.4, 8.3.1. */

const POLYNOMIAL = 0x8bb7;

/** For each byte, and 0 to 7 zero bytes after it, what it makes of the remainder: 8 bytes are done in one step. */
const STEPS = Array.from({ length: 8 }, () => new Uint16Array(256));
for (let byte = 0; byte < 256; byte++) {
  let remainder = byte << 8;
  for (const step of STEPS) {
    for (let bit = 0; bit < 8; bit++)
      remainder = ((remainder << 1) ^ ((remainder & 0x8000) !== 0 ? POLYNOMIAL : 0)) & 0xffff;
    step[byte] = remainder;
  }
}
const [S0, S1, S2, S3, S4, S5, S6, S7] = STEPS;

/** Of the bytes from `start` to before `end`. */
export function crc16(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0;
  let i = start;
  for (const last = end - 8; i <= last; i += 8)
    crc =
      S7[bytes[i] ^ (crc >>> 8)] ^
      S6[bytes[i + 1] ^ (crc & 0xff)] ^
      S5[bytes[i + 2]] ^
      S4[bytes[i + 3]] ^
      S3[bytes[i + 4]] ^
      S2[bytes[i + 5]] ^
      S1[bytes[i + 6]] ^
      S0[bytes[i + 7]];
  while (i < end) crc = ((crc & 0xff) << 8) ^ S0[(crc >>> 8) ^ bytes[i++]];
  return crc;
}
