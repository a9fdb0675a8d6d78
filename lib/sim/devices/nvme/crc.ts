/** The guard of protection information: CRC-16/T10-DIF. NVM Express 1.4, 8.3.1; SCSI Block Commands, "Data protection". */

/** x^16 + x^15 + x^11 + x^9 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1. */
const POLYNOMIAL = 0x8bb7;
/** Bytes that one step takes. */
const SLICE = 8;

/** What a byte contributes that 0, 1 … 7 others follow, 256 entries for each of these. */
const TABLE = makeTable();

function makeTable(): Uint16Array {
  const table = new Uint16Array(SLICE * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) !== 0 ? (crc << 1) ^ POLYNOMIAL : crc << 1;
    table[byte] = crc;
  }
  for (let i = 256; i < table.length; i++) {
    const before = table[i - 256];
    table[i] = (before << 8) ^ table[before >>> 8];
  }
  return table;
}

/** Of `bytes` from `start` to before `end`: 16 bits. */
export function crc16(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = 0;
  let at = start;
  for (; at + SLICE <= end; at += SLICE)
    crc =
      TABLE[0x700 + (bytes[at] ^ (crc >>> 8))] ^
      TABLE[0x600 + (bytes[at + 1] ^ (crc & 0xff))] ^
      TABLE[0x500 + bytes[at + 2]] ^
      TABLE[0x400 + bytes[at + 3]] ^
      TABLE[0x300 + bytes[at + 4]] ^
      TABLE[0x200 + bytes[at + 5]] ^
      TABLE[0x100 + bytes[at + 6]] ^
      TABLE[bytes[at + 7]];
  for (; at < end; at++) crc = ((crc << 8) & 0xffff) ^ TABLE[(crc >>> 8) ^ bytes[at]];
  return crc;
}
