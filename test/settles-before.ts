/**
 * Whether `promise` settles before a timer of so many milliseconds, which begins now: an order of events, which a slow machine
 * keeps as well, and not a time that is measured.
 */
export async function settlesBefore(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), milliseconds)));
  const settled = promise.then(
    () => true,
    () => true,
  );
  const first = await Promise.race([settled, late]);
  clearTimeout(timer);
  return first;
}
