/** The consumer's side of the fault rings in another thread: what is handed over, and what comes of it there. */
import { MessagePort } from 'node:worker_threads';
import { check, checkObject, refusal } from './errors';
import type { Kernel, Memory } from './kernel';
import { openKernel } from './open-kernel';
import { Doorbell } from './rings/doorbell';
import type { Link, RingDescriptors } from './rings/pump';
import { Ring } from './rings/ring';

/** Rings in a memfd: Linux. Its descriptors are good in the whole process, and in others that inherit them. */
export interface DescriptorShare extends RingDescriptors {
  readonly kind: 'memfd';
  /** The memory, laid out as native/ring.h says. */
  readonly memfd: number;
  /** Bytes. */
  readonly length: number;
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
    const ring = new Ring(memory.bytes.buffer);
    // Of its own: the queue's are closed with it, and their numbers may be another file's then.
    for (const fd of [share.doorbell, share.kick])
      descriptors.push(check(rings.duplicate(fd), { syscall: 'fcntl' }));
    const [doorbell, kick] = descriptors;
    return {
      ring,
      link: new DescriptorLink(kernel, new Doorbell(rings, doorbell), memory, ring, { doorbell, kick }),
    };
  } catch (error) {
    for (const fd of descriptors) kernel.close(fd);
    memory.free();
    throw error;
  }
}

/** What both have in common: the pump is elsewhere, and is told of responses only if it sleeps. */
abstract class RemoteLink implements Link {
  constructor(private readonly ring: Ring) {}

  abstract kick(): void;
  abstract start(wake: () => void): number;
  abstract stop(): void;
  abstract close(): void;

  pass(): number {
    return this.flush();
  }

  flush(): number {
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

  constructor(kernel: Kernel, doorbell: Doorbell, memory: Memory, ring: Ring, descriptors: RingDescriptors) {
    super(ring);
    this.#kernel = kernel;
    this.#memory = memory;
    this.#descriptors = descriptors;
    this.#doorbell = doorbell;
  }

  override kick(): void {
    this.#kernel.write(this.#descriptors.kick, this.#one);
  }

  override start(wake: () => void): number {
    return this.#doorbell.start(wake);
  }

  override stop(): void {
    this.#doorbell.stop();
  }

  override close(): void {
    this.#doorbell.close();
    this.#memory.free();
    for (const fd of [this.#descriptors.doorbell, this.#descriptors.kick]) this.#kernel.close(fd);
  }
}

class PortLink extends RemoteLink {
  readonly #port: MessagePort;
  #wake: (() => void) | undefined;

  constructor({ buffer, port }: MemoryShare) {
    super(new Ring(buffer));
    this.#port = port;
    port.on('message', () => this.#wake?.());
    port.unref();
  }

  override kick(): void {
    this.#port.postMessage(null);
  }

  override start(wake: () => void): number {
    this.#wake = wake;
    this.#port.ref();
    return 0;
  }

  override stop(): void {
    this.#wake = undefined;
    this.#port.unref();
  }

  override close(): void {
    this.stop();
    this.#port.close();
  }
}
