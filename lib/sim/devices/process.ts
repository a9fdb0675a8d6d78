/**
 * What a device does over simulated time, written as one function: a generator, which yields where it waits. A promise would
 * not do: a driver that polls a register in a loop lets events happen and no promise go on, and `machine.idle()` would be over
 * before the device is.
 */

/** Where a process waits: called with what lets it go on. */
export type Suspension = (resume: () => void) => void;

/** A device's activity: `function* () { const bytes = yield* this.dma.read(…); … }`. */
export type Process<Result = void> = Generator<Suspension, Result, void>;

/** Runs a process up to its first wait, and from there whenever what it waits for has happened. */
export function run(process: Process): void {
  const { done, value } = process.next();
  if (!done) value(() => run(process));
}
