/** What a namespace keeps its blocks in. */
export interface NvmeStorage {
  /** Bytes. */
  readonly size: number;
  /** Reads all of `bytes` from `offset` on. What it throws is an unrecovered read error to software. */
  read(offset: number, bytes: Uint8Array): void;
  /** What it throws is a write fault to software. */
  write(offset: number, bytes: Uint8Array): void;
  /** These bytes read as zeros from now on. */
  zero(offset: number, length: number): void;
  /** What was written before survives the loss of power. */
  flush(): void;
}

const CHUNK = 64 * 1024;

/** In memory: only what was written takes some. */
export class MemoryStorage implements NvmeStorage {
  readonly size: number;
  readonly #chunks = new Map<number, Uint8Array>();

  /** `size`: bytes. */
  constructor(size: number) {
    if (!Number.isSafeInteger(size) || size <= 0) throw new RangeError(`${size} is no number of bytes`);
    this.size = size;
  }

  /** Bytes of memory that it takes. */
  get allocated(): number {
    return this.#chunks.size * CHUNK;
  }

  read(offset: number, bytes: Uint8Array): void {
    eachChunk(offset, bytes.length, (chunk, at, length, done) => {
      const memory = this.#chunks.get(chunk);
      const part = bytes.subarray(done, done + length);
      if (memory) part.set(memory.subarray(at, at + length));
      else part.fill(0);
    });
  }

  write(offset: number, bytes: Uint8Array): void {
    eachChunk(offset, bytes.length, (chunk, at, length, done) => {
      let memory = this.#chunks.get(chunk);
      if (!memory) this.#chunks.set(chunk, (memory = new Uint8Array(CHUNK)));
      memory.set(bytes.subarray(done, done + length), at);
    });
  }

  zero(offset: number, length: number): void {
    eachChunk(offset, length, (chunk, at, part) => {
      if (part === CHUNK) this.#chunks.delete(chunk);
      else this.#chunks.get(chunk)?.fill(0, at, at + part);
    });
  }

  flush(): void {}
}

function eachChunk(
  offset: number,
  length: number,
  act: (chunk: number, at: number, length: number, done: number) => void,
): void {
  for (let done = 0; done < length;) {
    const at = (offset + done) % CHUNK;
    const part = Math.min(length - done, CHUNK - at);
    act((offset + done - at) / CHUNK, at, part, done);
    done += part;
  }
}
