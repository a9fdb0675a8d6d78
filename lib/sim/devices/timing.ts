/** Simulated time of what devices do on the bus; no real device's, but in proportion. */
export const TRANSLATION_NANOSECONDS = 500;
export const RESPONSE_NANOSECONDS = 100;
const ACCESS_NANOSECONDS = 200;
const BYTES_PER_NANOSECOND = 16;

/** Of one read or write within a page. */
export function accessNanoseconds(bytes: number): number {
  return ACCESS_NANOSECONDS + Math.ceil(bytes / BYTES_PER_NANOSECOND);
}
