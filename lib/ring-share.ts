/** The consumer's side of the fault rings in another thread: what is handed over, and what comes of it there. */
import { MessagePort } from 'node:worker_threads';
import { check, checkObject, refusal } from './errors';
import type { Kernel, Memory } from './kernel';
import { openKernel } from './open-kernel';
import { Doorbell } from './rings/doorbell';
import type { Link, RingDescriptors } from './rings/pump';
import { Ring } from './rings/ring';
import { errno } from './uapi';

/** Rings in a memfd: Linux. Its descriptors are good in the whole process, and in others that inherit them. */
export interface DescriptorShare extends RingDescriptors {
  readonly kind: 'memfd';
  /** The memory, laid out as native/ring.h says. */
  readonly memfd: number;
  /** Bytes. */
  readonly length: number;
  /** Of the ring: its descriptors' numbers are another file's once the queue is closed. */
  readonly identity?: string | undefined;
  /** Its closing tells of either side's end. For another process there is none. */
  readonly port?: MessagePort | undefined;
}

/** Rings in shared memory of JavaScript: the simulation. */
export interface MemoryShare {
  readonly kind: 'memory';
  readonly buffer: SharedArrayBuffer;
  /** Carries the doorbells, both ways. */
  readonly port: MessagePort;
}

/** What `queue.share()` hands over: for `workerData` or postMessage(), with its `transferList`. */
export type RingShare = DescriptorShare | MemoryShare;

/** The ring that was handed over, and the way to its pump. Throws IommuError, TypeError, RangeError. */
export function openShare(share: RingShare): { ring: Ring; link: Link } {
  if (share?.kind === 'memory') return { ring: new Ring(share.buffer), link: new PortLink(share) };
  if (share?.kind !== 'memfd')
    throw new TypeError('a consumer is made from what queue.share() has handed over');
  const kernel = openKernel('linux');
  const { rings } = kernel;
  if (!rings) throw refusal('EOPNOTSUPP', 'this kernel maps no memfd', { syscall: 'mmap' });
  const memory = checkObject(rings.mapMemory(share.memfd, share.length), { syscall: 'mmap' });
  const descriptors: number[] = [];
  try {
    const ring = ringOf(memory, share.identity);
    // Of its own: the queue's are closed with it, and their numbers may be another file's then.
    for (const fd of [share.doorbell, share.kick])
      descriptors.push(check(rings.duplicate(fd), { syscall: 'fcntl' }));
    const [doorbell, kick] = descriptors;
    return {
      ring,
      link: new DescriptorLink(
        kernel,
        new Doorbell(rings, doorbell),
        memory,
        ring,
        { doorbell, kick },
        share.port,
      ),
    };
  } catch (error) {
    for (const fd of descriptors) kernel.close(fd);
    memory.free();
    throw error;
  }
}

function ringOf(memory: Memory, identity: string | undefined): Ring {
  let ring: Ring | undefined;
  try {
    ring = new Ring(memory.bytes.buffer);
  } catch (error) {
    if (identity === undefined) throw error;
  }
  if (ring && (identity === undefined || ring.identity === identity)) return ring;
  throw refusal('EBADF', 'the queue whose ring was handed over is closed', { syscall: 'mmap' });
}

/** What both have in common: the pump is elsewhere, and is told of responses only if it sleeps. */
abstract class RemoteLink implements Link {
  takenBack = false;
  protected wake: (() => void) | undefined;

  constructor(
    private readonly ring: Ring,
    protected readonly port: MessagePort | undefined,
  ) {
    port?.on('close', () => {
      this.takenBack = true;
      this.wake?.();
      this.stopHearing();
    });
    port?.unref();
  }

  abstract kick(): void;
  /** The doorbell is another's. */
  protected stopHearing(): void {}
  abstract start(wake: () => void): number;
  abstract stop(): void;
  abstract close(): void;

  pass(): number {
    return this.flush();
  }

  flush(): number {
    if (this.takenBack) return -errno.EBADF;
    if (this.ring.responses > 0 && this.ring.wakePump()) this.kick();
    return -this.ring.error;
  }

  /** The pump knows. */
  isCurrent(): boolean {
    return true;
  }
}

class DescriptorLink extends RemoteLink {
  readonly #kernel: Kernel;
  readonly #memory: Memory;
  readonly #descriptors: RingDescriptors;
  readonly #one = new Uint8Array(new BigUint64Array([1n]).buffer);
  readonly #doorbell: Doorbell;

  constructor(
    kernel: Kernel,
    doorbell: Doorbell,
    memory: Memory,
    ring: Ring,
    descriptors: RingDescriptors,
    port: MessagePort | undefined,
  ) {
    super(ring, port);
    this.#kernel = kernel;
    this.#memory = memory;
    this.#descriptors = descriptors;
    this.#doorbell = doorbell;
  }

  override kick(): void {
    this.#kernel.write(this.#descriptors.kick, this.#one);
  }

  override start(wake: () => void): number {
    this.wake = wake;
    return this.takenBack ? 0 : this.#doorbell.start(wake);
  }

  override stop(): void {
    this.#doorbell.stop();
  }

  protected override stopHearing(): void {
    this.#doorbell.close();
  }

  override close(): void {
    this.wake = undefined;
    this.port?.close();
    this.#doorbell.close();
    this.#memory.free();
    for (const fd of [this.#descriptors.doorbell, this.#descriptors.kick]) this.#kernel.close(fd);
  }
}

class PortLink extends RemoteLink {
  readonly #port: MessagePort;

  constructor({ buffer, port }: MemoryShare) {
    super(new Ring(buffer), port);
    this.#port = port;
    port.on('message', () => this.wake?.());
    port.unref();
  }

  override kick(): void {
    this.#port.postMessage(null);
  }

  override start(wake: () => void): number {
    this.wake = wake;
    this.#port.ref();
    return 0;
  }

  override stop(): void {
    this.#port.unref();
  }

  override close(): void {
    this.wake = undefined;
    this.#port.close();
  }
}
