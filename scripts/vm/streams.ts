// Streams from the guest: the command's output up to its end marker, and logs of what the console and QEMU say.
import { Writable } from 'node:stream';

/**
 * Passes bytes on until the marker comes. A stream of the guest does not end by itself, and QEMU may still hold the
 * last bytes when the command is over: only the marker says that all of it is here.
 */
export class MarkedStream {
  #held: Buffer = Buffer.alloc(0);
  #ended = false;

  constructor(
    readonly marker: Buffer,
    readonly write: (bytes: Buffer) => void,
  ) {}

  get ended(): boolean {
    return this.#ended;
  }

  push(chunk: Buffer): void {
    if (this.#ended) return;
    const bytes = Buffer.concat([this.#held, chunk]);
    const end = bytes.indexOf(this.marker);
    if (end >= 0) {
      this.#ended = true;
      this.#pass(bytes.subarray(0, end));
      return;
    }
    const keep = this.#partial(bytes);
    this.#held = Buffer.from(bytes.subarray(bytes.length - keep));
    this.#pass(bytes.subarray(0, bytes.length - keep));
  }

  /** No more will come: what looked like the start of a marker was output. */
  flush(): void {
    this.#pass(this.#held);
    this.#held = Buffer.alloc(0);
  }

  #pass(bytes: Buffer): void {
    if (bytes.length > 0) this.write(bytes);
  }

  /** Length of the longest end of `bytes` that may be the start of the marker. */
  #partial(bytes: Buffer): number {
    const most = Math.min(bytes.length, this.marker.length - 1);
    for (let length = most; length > 0; length--) {
      if (bytes.subarray(bytes.length - length).equals(this.marker.subarray(0, length))) return length;
    }
    return 0;
  }
}

/** Keeps what is written to it. */
export class Collector extends Writable {
  readonly #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

/** The lines of a log: as many of its first and of its last bytes as the limit says. */
export class Log {
  #head = '';
  #tail = '';

  constructor(readonly limit = 64 * 1024) {}

  push(chunk: Buffer): void {
    const text = chunk.toString('latin1');
    const room = this.limit - this.#head.length;
    this.#head += text.slice(0, room);
    this.#tail = (this.#tail + text).slice(-this.limit);
  }

  /** The first `count` lines that have something on them. */
  first(count: number): string[] {
    return lines(this.#head).slice(0, count);
  }

  /** The last `count` lines that have something on them. */
  last(count: number): string[] {
    return lines(this.#tail).slice(-count);
  }
}

function lines(text: string): string[] {
  return text.split(/[\r\n]+/).filter((line) => line.trim() !== '');
}
