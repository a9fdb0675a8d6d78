/** 64 bits in hexadecimal: '0xfee00000'. */
export type Hex = `0x${string}`;

export function hex(value: bigint): Hex {
  return `0x${value.toString(16)}`;
}
