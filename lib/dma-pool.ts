import type { AddressSpace } from './address-space';
import { blockSize, Buddy } from './buddy';
import { DmaBuffer } from './dma-buffer';
import { refusal } from './errors';
import { Handle, runAll } from './handle';
import type { Mapping } from './mapping';
import { limited, type WaitOptions } from './wait';

/** Options of `space.createPool`. */
export interface DmaPoolOptions {
  /**
   * Bytes that the pool takes from the kernel at a time, rounded up to a power of two. Default 64 KiB, or 2 MiB with huge
   * pages. A slice that is larger than that gets memory of its own.
   */
  chunk?: number | undefined;
  /** Bytes that the pool holds at most; chunks without a slice make room for others. Default: as many as the kernel gives. */
  limit?: number | undefined;
  /** Back it with huge pages, which must be reserved (vm.nr_hugepages): the IOMMU needs one entry for 2 MiB. */
  hugePages?: boolean | undefined;
  /** Let devices read. Default true. */
  read?: boolean | undefined;
  /** Let devices write. Default true. */
  write?: boolean | undefined;
}

const DEFAULT_CHUNK = 64 * 1024;
const HUGE_PAGE = 2 * 1024 * 1024;
const NOTHING = new Uint8Array(0);

/** Memory that the pool has taken, and mapped. */
interface Chunk {
  readonly buffer: DmaBuffer;
  readonly mapping: Mapping;
  readonly blocks: Buddy;
}

interface Waiter {
  readonly length: number;
  resolve(slice: DmaSlice): void;
  reject(error: unknown): void;
}

/**
 * A piece of a pool: memory that devices reach at `iova` until it is freed. `using slice = pool.allocate(…)` ties the two to
 * a block of the program.
 */
export class DmaSlice {
  readonly pool: DmaPool;
  /** Where devices find it: a multiple of its length rounded up to a power of two, or of 4096 if that is less. */
  readonly iova: bigint;
  /** Bytes, as asked for. */
  readonly length: number;
  /** @internal */ readonly chunk: Chunk;
  /** @internal Bytes from the start of the chunk. */
  readonly offset: number;
  #bytes: Uint8Array<ArrayBuffer>;

  /** @internal Use `pool.allocate()`. */
  constructor(pool: DmaPool, chunk: Chunk, offset: number, length: number) {
    this.pool = pool;
    this.chunk = chunk;
    this.offset = offset;
    this.length = length;
    this.iova = chunk.mapping.iova + BigInt(offset);
    this.#bytes = chunk.buffer.bytes.subarray(offset, offset + length);
  }

  /** The memory itself. Length 0 after free(). */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  get freed(): boolean {
    return this.#bytes === NOTHING || this.pool.closed;
  }

  /**
   * Gives it back to the pool. The device must be done with it: it can reach the memory still, and another slice will be
   * there. Does nothing the second time.
   */
  free(): void {
    if (this.freed) return;
    this.#bytes = NOTHING;
    this.pool.giveBack(this);
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

/**
 * Memory for an address space's devices in pieces of any size: queues, descriptors, a buffer for each request. It is mapped
 * once, in chunks; a slice costs no system call. Closing the pool, or its space, takes all of it from the devices.
 */
export class DmaPool extends Handle {
  readonly space: AddressSpace;
  /** Bytes that it takes at most. */
  readonly limit: number;
  readonly #options: DmaPoolOptions;
  readonly #chunk: number;
  readonly #chunks: Chunk[] = [];
  #waiters: Waiter[] = [];
  #size = 0;
  #used = 0;

  /** @internal Use `space.createPool()`. */
  constructor(space: AddressSpace, options: DmaPoolOptions) {
    super();
    space.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    const { chunk = options.hugePages ? HUGE_PAGE : DEFAULT_CHUNK, limit = Infinity } = options;
    checkBytes('chunk', chunk);
    if (limit !== Infinity) checkBytes('limit', limit);
    this.space = space;
    this.limit = limit;
    this.#options = { ...options };
    const least = options.hugePages ? HUGE_PAGE : space.context.kernel.pageSize;
    this.#chunk = Math.max(blockSize(chunk), least);
    if (this.#chunk > limit)
      throw new RangeError(`a limit of ${limit} bytes is less than one chunk, ${this.#chunk} bytes`);
    space.children.add(this);
  }

  /** @internal */ override get label(): string {
    return `the pool of ${this.space.label}`;
  }

  /** Bytes that it has taken from the kernel; all of them count as pinned while a device is attached. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of slices that are not freed, each rounded up to a power of two, 64 at least. */
  get used(): number {
    return this.#used;
  }

  /**
   * A slice of zeroed memory.
   *
   * Throws RangeError; IommuError ENOSPC (the limit is reached: free something, or wait with acquire()), and what
   * `iommu.allocateDma()` and `space.map()` throw.
   */
  allocate(length: number): DmaSlice {
    this.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    checkBytes('length', length);
    const slice = this.#waiters.length === 0 ? this.#tryAllocate(length) : undefined;
    if (slice) return slice;
    throw refusal('ENOSPC', `${this.label} has no ${length} bytes left: its limit is ${this.limit}`, {
      request: 'IOMMU_IOAS_MAP',
      hint: 'free slices, wait for some with acquire(), or make the pool with a higher limit',
    });
  }

  /**
   * As allocate(), but where the limit is reached it waits until enough was freed; who asked first is served first.
   * Rejects with IommuError ETIMEDOUT, EBADF (the pool was closed meanwhile), or the signal's reason.
   */
  async acquire(length: number, options: WaitOptions = {}): Promise<DmaSlice> {
    this.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    checkBytes('length', length);
    if (blockSize(length) > this.limit)
      throw new RangeError(`${length} bytes are more than the pool's limit, ${this.limit}`);
    const late = () => `${this.label} had no ${length} bytes left for ${options.timeout} ms`;
    return limited(options, late, (resolve, reject) => {
      const waiter = { length, resolve, reject };
      this.#waiters.push(waiter);
      this.#serve();
      return () => {
        const first = this.#waiters[0] === waiter;
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        // Those behind it may need less.
        if (first) this.#serve();
      };
    });
  }

  /** @internal Use `slice.free()`. */
  giveBack({ chunk, offset, length }: DmaSlice): void {
    const size = blockSize(length);
    chunk.blocks.free(offset, size);
    this.#used -= size;
    this.#serve();
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      const [waiter] = this.#waiters;
      let slice: DmaSlice | undefined;
      try {
        slice = this.#tryAllocate(waiter.length);
      } catch (error) {
        this.#waiters.shift();
        waiter.reject(error);
        continue;
      }
      if (!slice) return;
      this.#waiters.shift();
      waiter.resolve(slice);
    }
  }

  /** Undefined where the limit is reached. */
  #tryAllocate(length: number): DmaSlice | undefined {
    const size = blockSize(length);
    for (const chunk of this.#chunks) {
      const offset = chunk.blocks.size < size ? -1 : chunk.blocks.allocate(size);
      if (offset >= 0) return this.#slice(chunk, offset, length);
    }
    const added = Math.max(this.#chunk, size);
    if (!this.#makeRoom(added)) return undefined;
    const chunk = this.#grow(added);
    return this.#slice(chunk, chunk.blocks.allocate(size), length);
  }

  /**
   * Gives chunks of which nothing is in use back to the kernel where the limit leaves no room for another: free memory in
   * pieces that are too small would otherwise keep a large slice waiting for ever. False if even that is not enough.
   */
  #makeRoom(added: number): boolean {
    const idle = this.#chunks.filter(({ blocks }) => blocks.idle);
    const held = this.#size - idle.reduce((sum, { blocks }) => sum + blocks.size, 0);
    if (held + added > this.limit) return false;
    while (this.#size + added > this.limit) {
      const chunk = idle.pop()!;
      chunk.buffer.close();
      this.#chunks.splice(this.#chunks.indexOf(chunk), 1);
      this.#size -= chunk.blocks.size;
    }
    return true;
  }

  #slice(chunk: Chunk, offset: number, length: number): DmaSlice {
    this.#used += blockSize(length);
    const slice = new DmaSlice(this, chunk, offset, length);
    slice.bytes.fill(0);
    return slice;
  }

  #grow(size: number): Chunk {
    const { hugePages = false, read = true, write = true } = this.#options;
    const buffer = DmaBuffer.allocate(this.space.context, size, { hugePages });
    try {
      const chunk = { buffer, mapping: this.space.map(buffer, { read, write }), blocks: new Buddy(size) };
      this.#chunks.push(chunk);
      this.#size += size;
      return chunk;
    } catch (error) {
      buffer.close();
      throw error;
    }
  }

  /** Unmapped before it is freed: no device writes to memory that is others' by then. */
  protected override release(): void {
    const waiters = this.#waiters.splice(0);
    for (const waiter of waiters) waiter.reject(this.closedError({ request: 'IOMMU_IOAS_MAP' }));
    runAll([
      ...this.#chunks.map(
        ({ buffer }) =>
          () =>
            buffer.close(),
      ),
      () => void this.space.children.delete(this),
    ]);
  }
}

function checkBytes(what: string, value: unknown): void {
  if (typeof value !== 'number')
    throw new TypeError(`${what} must be a number of bytes, not ${typeof value}`);
  if (!Number.isSafeInteger(value) || value <= 0)
    throw new RangeError(`${what} ${value} is not a positive number of bytes`);
}
