/**
 * Simulated time: a queue of events in nanoseconds since the machine was made. Nothing runs by itself; whoever owns
 * the clock steps it. Events of equal time run in the order in which they were scheduled.
 */

/** Events `idle` runs before it concludes that they never end. */
export const IDLE_LIMIT = 1_000_000;

export class Clock {
  /** Called after an event was scheduled, so that an owner who runs events in the background can wake up. */
  onScheduled: (() => void) | undefined;

  private time = 0;
  private sequence = 0;
  // A binary heap in three parallel arrays, so that an event costs no object.
  private readonly times: number[] = [];
  private readonly sequences: number[] = [];
  private readonly events: (() => void)[] = [];

  /** Nanoseconds since the start. */
  get now(): number {
    return this.time;
  }

  /** Events waiting. */
  get pending(): number {
    return this.events.length;
  }

  /** When the next event is due, or Infinity. */
  get next(): number {
    return this.times.length > 0 ? this.times[0] : Infinity;
  }

  /** Runs `event` once, `delayNanoseconds` (finite, 0 or more) from now. RangeError for any other delay. */
  schedule(delayNanoseconds: number, event: () => void): void {
    if (!Number.isFinite(delayNanoseconds) || delayNanoseconds < 0) {
      throw new RangeError(`a delay must be a finite number of nanoseconds, 0 or more: ${delayNanoseconds}`);
    }
    if (typeof event !== 'function') throw new TypeError('an event must be a function');
    this.times.push(this.time + delayNanoseconds);
    this.sequences.push(this.sequence++);
    this.events.push(event);
    this.siftUp(this.events.length - 1);
    this.onScheduled?.();
  }

  /** Advances to the next event and runs it. False if there is none. What it throws, this throws. */
  step(): boolean {
    if (this.events.length === 0) return false;
    const event = this.events[0];
    this.time = this.times[0];
    this.removeFirst();
    event();
    return true;
  }

  /**
   * Runs events until none is left, and returns how many ran. Throws an Error if there are still more after `limit`
   * of them: a device that schedules itself forever must not hang its user.
   */
  idle(limit = IDLE_LIMIT): number {
    let ran = 0;
    while (this.events.length > 0) {
      if (ran >= limit) {
        throw new Error(
          `the simulation is not idle after ${limit} events (${this.events.length} pending, ` +
            `${this.time} ns): a device seems to schedule events without end`,
        );
      }
      this.step();
      ran++;
    }
    return ran;
  }

  private before(a: number, b: number): boolean {
    if (this.times[a] !== this.times[b]) return this.times[a] < this.times[b];
    return this.sequences[a] < this.sequences[b];
  }

  private swap(a: number, b: number): void {
    const time = this.times[a];
    this.times[a] = this.times[b];
    this.times[b] = time;
    const sequence = this.sequences[a];
    this.sequences[a] = this.sequences[b];
    this.sequences[b] = sequence;
    const event = this.events[a];
    this.events[a] = this.events[b];
    this.events[b] = event;
  }

  private siftUp(index: number): void {
    while (index > 0) {
      const parent = (index - 1) >>> 1;
      if (!this.before(index, parent)) return;
      this.swap(index, parent);
      index = parent;
    }
  }

  private removeFirst(): void {
    const last = this.events.length - 1;
    this.swap(0, last);
    this.times.pop();
    this.sequences.pop();
    this.events.pop();
    let index = 0;
    for (;;) {
      let least = 2 * index + 1;
      if (least >= last) return;
      if (least + 1 < last && this.before(least + 1, least)) least++;
      if (!this.before(least, index)) return;
      this.swap(least, index);
      index = least;
    }
  }
}
