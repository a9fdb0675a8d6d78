/** The groups of faults that were read and not answered, by the kernel's cookie for each. */

/** Cookies are the lowest that are free: as many as there are groups at a time. */
const MOST = 2 ** 26;

export class GroupTable {
  #generations = new Int32Array(256);
  /** Faults of the group; 0: there is none. */
  #counts = new Int32Array(256);
  /** The slot by which the kernel chose the queue. */
  #slots = new Int32Array(256);
  #held = 0;

  /** Faults of all groups. */
  get held(): number {
    return this.#held;
  }

  /** A group, in place of what had its cookie: that one the kernel has answered itself. */
  add(cookie: number, generation: number, count: number, slot: number): void {
    if (cookie >= this.#counts.length) this.#grow(cookie);
    this.#held += count - this.#counts[cookie];
    this.#generations[cookie] = generation;
    this.#counts[cookie] = count;
    this.#slots[cookie] = slot;
  }

  isCurrent(cookie: number, generation: number): boolean {
    return this.#counts[cookie] > 0 && this.#generations[cookie] === (generation | 0);
  }

  /** Forgets a group. */
  remove(cookie: number): void {
    this.#held -= this.#counts[cookie];
    this.#counts[cookie] = 0;
  }

  /** Forgets the groups of a slot. */
  removeSlot(slot: number): void {
    for (let cookie = 0; cookie < this.#counts.length; cookie++)
      if (this.#counts[cookie] > 0 && this.#slots[cookie] === slot) this.remove(cookie);
  }

  #grow(cookie: number): void {
    if (cookie >= MOST) throw new RangeError(`the kernel names a group ${cookie}`);
    let length = this.#counts.length;
    while (length <= cookie) length *= 2;
    const copy = (from: Int32Array) => {
      const to = new Int32Array(length);
      to.set(from);
      return to;
    };
    this.#generations = copy(this.#generations);
    this.#counts = copy(this.#counts);
    this.#slots = copy(this.#slots);
  }
}
