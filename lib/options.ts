/** Throws TypeError unless it is an object; `caller` is who takes it, `what` what is in it. */
export function checkOptions(options: unknown, caller: string, what = 'an object of options'): void {
  if (typeof options !== 'object' || options === null)
    throw new TypeError(`${caller} takes ${what}, not ${options === null ? 'null' : typeof options}`);
}
