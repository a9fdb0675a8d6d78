/**
 * A pump in JavaScript, on the event loop of its consumer: for kernels that bring none of their own. Its doorbell is
 * answered by the call of the event loop that rang it, or in a microtask behind a call of the consumer.
 */
import { POLLERR, POLLHUP, POLLIN, type Kernel, type Watch } from '../kernel';
import { errno } from '../uapi';
import { GroupTable } from './groups';
import { EventIntake, FaultIntake, Stamp, type Intake } from './intake';
import { response, RING_FAULTS } from './layout';
import type { Pump, PumpOptions } from './pump';
import type { Ring } from './ring';
import { SlotTable } from './slots';

/** Room for this many records at first; it grows when what comes first needs more. */
const FIRST_ROOM = 256;
/** The kernel has answered EINVAL to a buffer of this many records: something else is wrong. */
const LAST_ROOM = 1 << 20;
/** Responses of one write(2) at most. */
const BATCH = 512;
/** The kernel's struct iommu_hwpt_page_response: cookie and code. */
const KERNEL_RESPONSE = 8;
const RESPONSE_INVALID = 1;
/** Milliseconds. */
const A_DAY = 86_400_000;
const [COOKIE, CODE, GENERATION] = [response.groupCookie >> 2, response.code >> 2, response.generation >> 2];

export class SoftwarePump implements Pump {
  readonly #kernel: Kernel;
  readonly #fd: number;
  readonly #ring: Ring;
  readonly #limit: number;
  readonly #slots = new SlotTable();
  readonly #groups = new GroupTable();
  readonly #stamp = new Stamp();
  readonly #intake: Intake;
  #room = FIRST_ROOM;
  #words: Int32Array;
  #bytes: Uint8Array;
  /** Responses on their way: those from #sent to #filled. The first #own bytes are the pump's own. */
  readonly #out = new Int32Array((BATCH * KERNEL_RESPONSE) >> 2);
  readonly #outBytes = new Uint8Array(this.#out.buffer);
  #sent = 0;
  #filled = 0;
  #own = 0;
  /** Groups of nobody: 'invalid' is their answer. */
  readonly #orphans: number[] = [];
  /** The kernel may have records that there is no room for. */
  #blocked = false;
  /** The consumer's index when that was found. */
  #seenTail = 0;
  #paused = 0;
  #rung = false;
  /** By the event loop: the doorbell is answered behind it. Else it may be the consumer who calls. */
  #called = false;
  #wake: (() => void) | undefined;
  /** Somebody waits, and so the process stays. */
  #waited = false;
  #kept = false;
  /** Keeps it where there is no watch that does. */
  #keeper: NodeJS.Timeout | undefined;
  #watch: Watch | undefined;

  constructor(kernel: Kernel, fd: number, ring: Ring, { limit }: PumpOptions) {
    this.#kernel = kernel;
    this.#fd = fd;
    this.#ring = ring;
    this.#limit = limit;
    this.#intake =
      ring.shape.kind === RING_FAULTS
        ? new FaultIntake(
            ring,
            this.#slots,
            this.#groups,
            (cookie) => void this.#orphans.push(cookie),
            this.#stamp,
          )
        : new EventIntake(ring, this.#stamp);
    this.#words = new Int32Array(Math.ceil((this.#room * ring.shape.sourceBytes) / 4));
    this.#bytes = new Uint8Array(this.#words.buffer);
  }

  pass(): number {
    const result = this.#move(true);
    return result === 0 && this.#blocked ? 1 : result;
  }

  flush(): number {
    // What was answered may make room for what the kernel has kept.
    return this.#move(this.#blocked && this.#waited);
  }

  #move(fill: boolean): number {
    if (this.#ring.error !== 0) return -this.#ring.error;
    if (this.#paused > 0) return 0;
    let result;
    do {
      result = this.#flush();
      if (result === 0 && fill) result = this.#fill();
      this.#ring.pumpSleeps(this.#blocked);
    } while (result === 0 && this.#mustStayAwake(fill));
    if (result < 0) this.#end(-result);
    this.#follow();
    return result;
  }

  /** The look after saying that it sleeps: the consumer may be in another thread. */
  #mustStayAwake(fill: boolean): boolean {
    const unsent = this.#sent < this.#filled;
    const room = fill && this.#blocked && this.#ring.tail !== this.#seenTail;
    return (this.#ring.responses > 0 && !unsent) || room;
  }

  kick(): void {
    this.flush();
  }

  start(wake: () => void, keep = true): number {
    this.#wake = wake;
    this.#waited = true;
    this.#kept = keep;
    // What was answered while nobody waited has made room, perhaps.
    if (this.#blocked) this.#move(true);
    return this.#follow();
  }

  stop(): void {
    this.#waited = this.#kept = false;
    this.#follow();
  }

  pause(): void {
    this.#paused++;
  }

  resume(): void {
    this.#paused--;
    this.flush();
  }

  fillSlot(device: number, pasid: number, ioasid: number, cookie: bigint): void {
    this.#slots.fill(device, pasid, ioasid, cookie);
  }

  emptySlot(device: number, pasid: number): void {
    this.#intake.forget(device, pasid);
    const slot = this.#slots.empty(device, pasid);
    if (slot >= 0) this.#groups.removeSlot(slot);
  }

  isCurrent(groupCookie: number, generation: number): boolean {
    return this.#groups.isCurrent(groupCookie, generation);
  }

  lend(): undefined {
    return undefined;
  }

  close(): void {
    if (this.#ring.error === 0) {
      this.#ring.end(errno.EBADF);
      this.#wake?.();
    }
    this.#wake = undefined;
    this.#waited = this.#kept = false;
    clearInterval(this.#keeper);
    this.#watch?.close();
    this.#watch = undefined;
    this.#paused = Infinity;
  }

  /**
   * Watches the file while somebody waits. Afterwards the watch stays, as nothing that keeps the process: making one costs
   * more than a fault. Not so where there is no room: the file is ready for as long as nobody reads.
   */
  #follow(): number {
    clearInterval(this.#keeper);
    if (this.#blocked || this.#ring.error !== 0) {
      this.#watch?.close();
      this.#watch = undefined;
      if (this.#kept && this.#ring.error === 0) this.#keeper = setInterval(() => {}, A_DAY);
      return 0;
    }
    if (!this.#waited || this.#watch) {
      if (this.#kept) this.#watch?.ref();
      else this.#watch?.unref();
      return 0;
    }
    const watch = this.#kernel.watch(this.#fd, POLLIN, (ready) => this.#ready(ready));
    if (typeof watch === 'number') return watch;
    this.#watch = watch;
    if (!this.#kept) watch.unref();
    return 0;
  }

  #ready(ready: number): void {
    let moved = false;
    this.#called = true;
    try {
      const result = this.#move(true);
      // What the file had before it ended comes first.
      if (result === 0 && !this.#blocked && ready & (POLLHUP | POLLERR)) this.#end(errno.ENODEV);
      moved = true;
    } finally {
      this.#called = false;
      // What came before the kernel threw has been published.
      if (!moved && this.#rung) queueMicrotask(this.#answerDoorbell);
    }
    this.#answerDoorbell();
  }

  #end(reason: number): void {
    this.#ring.end(reason);
    this.#ringDoorbell();
    this.#follow();
  }

  /** Rings the consumer's doorbell. */
  #ringDoorbell(): void {
    if (this.#rung) return;
    this.#rung = true;
    if (!this.#called) queueMicrotask(this.#answerDoorbell);
  }

  readonly #answerDoorbell = (): void => {
    if (!this.#rung) return;
    this.#rung = false;
    this.#wake?.();
  };

  #fill(): number {
    let whole = false;
    for (;;) {
      this.#seenTail = this.#ring.tail;
      // The consumer's index makes no sense.
      if (this.#ring.free < 0) return -errno.EIO;
      if (this.#intake.waiting) this.#publish();
      // Before the kernel can give the cookie of a group of nobody to another.
      const flushed = this.#orphans.length > 0 ? this.#flush() : 0;
      if (flushed < 0) return flushed;
      // Records that have waited for room were given it; what has none yet holds up the rest.
      const room = this.#intake.waiting ? 0 : this.#roomNow(whole);
      this.#blocked = room === 0;
      if (room === 0) return 0;
      const bytes =
        room === this.#room ? this.#bytes : this.#bytes.subarray(0, room * this.#ring.shape.sourceBytes);
      const length = this.#retried(() => this.#kernel.read(this.#fd, bytes));
      // A read of 0 bytes: empty. EINVAL: what comes first does not fit.
      if (length === 0 || length === -errno.EAGAIN) return 0;
      if (length > 0) {
        const { kind, sourceBytes } = this.#ring.shape;
        if (kind === RING_FAULTS && length % sourceBytes !== 0) return -errno.EIO;
        whole = false;
        this.#stamp.take();
        this.#intake.accept(this.#words, length);
      } else if (length !== -errno.EINVAL) return length;
      else if (room < this.#room) {
        // Where nothing waits for anything, a group may be larger than the limit, and than the ring.
        whole = this.#groups.held === 0 && this.#ring.available === 0;
        this.#blocked = !whole;
        if (!whole) return 0;
      } else if (!this.#grow()) return length;
    }
  }

  #roomNow(whole: boolean): number {
    if (whole) return this.#room;
    return Math.max(0, Math.min(this.#room, this.#ring.free, this.#limit - this.#groups.held));
  }

  #grow(): boolean {
    if (this.#room >= LAST_ROOM) return false;
    this.#room *= 2;
    this.#words = new Int32Array(2 * this.#words.length);
    this.#bytes = new Uint8Array(this.#words.buffer);
    return true;
  }

  #publish(): void {
    const { head } = this.#ring;
    const next = this.#intake.write(head, Math.max(0, this.#ring.free));
    if (next !== head && this.#ring.publish(next)) this.#ringDoorbell();
  }

  /** One write(2) for all responses there are, and another where the kernel stopped at one that it does not take. */
  #flush(): number {
    for (;;) {
      // The consumer's index makes no sense.
      if (this.#ring.responses > this.#ring.shape.responses) return -errno.EIO;
      if (this.#sent === this.#filled && !this.#gather()) return 0;
      const bytes = this.#outBytes.subarray(this.#sent, this.#filled);
      const result = this.#retried(() => this.#kernel.write(this.#fd, bytes));
      if (result > 0) this.#sent += result;
      else if (result === -errno.EAGAIN) return 0;
      else if (result === -errno.EINVAL) {
        // Nobody waits for this one any more.
        if (this.#sent >= this.#own) this.#ring.refuse();
        this.#sent = (Math.floor(this.#sent / KERNEL_RESPONSE) + 1) * KERNEL_RESPONSE;
      } else return result === 0 ? -errno.EIO : result;
    }
  }

  /** Takes responses from the ring. False: there are none. */
  #gather(): boolean {
    const ring = this.#ring;
    let words = 0;
    while (this.#orphans.length > 0 && words < this.#out.length) {
      this.#out[words++] = this.#orphans.shift()!;
      this.#out[words++] = RESPONSE_INVALID;
    }
    this.#own = 4 * words;
    let taken = 0;
    for (const count = ring.responses; taken < count && words < this.#out.length; taken++) {
      const at = ring.responseSlot(taken);
      const cookie = ring.words[at + COOKIE] >>> 0;
      if (!this.#groups.isCurrent(cookie, ring.words[at + GENERATION])) {
        ring.refuse();
        continue;
      }
      this.#groups.remove(cookie);
      this.#out[words++] = cookie;
      this.#out[words++] = ring.words[at + CODE];
    }
    if (taken > 0) ring.takeResponses(taken);
    this.#sent = 0;
    this.#filled = 4 * words;
    return words > 0;
  }

  #retried(call: () => number): number {
    let result;
    do result = call();
    while (result === -errno.EINTR);
    return result;
  }
}
