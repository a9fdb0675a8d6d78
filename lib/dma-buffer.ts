import type { Context } from './context';
import { failure } from './errors';
import { Handle } from './handle';
import type { AllocateOptions, Kernel, Memory } from './kernel';
import type { Mapping } from './mapping';
import { errno } from './uapi';

const NO_HUGE_PAGES: Readonly<Record<number, string>> = {
  [-errno.ENOMEM]: 'huge pages must be reserved first: sudo sysctl vm.nr_hugepages=…',
};

/**
 * Memory that devices may reach once it is mapped into an address space: page-aligned, zeroed, and never
 * moved or freed by the garbage collector.
 */
export class DmaBuffer extends Handle {
  /** @internal The kernel whose address space this memory is in. */
  readonly kernel: Kernel;
  readonly #context: Context;
  readonly #memory: Memory;
  /** @internal `address` as a number: a process's addresses are below 2^53. */
  readonly userAddress: number;
  /** The youngest of the mappings that exist: each knows its neighbours. */
  #youngest: Mapping | undefined;

  private constructor(context: Context, memory: Memory) {
    super();
    this.#context = context;
    this.kernel = context.kernel;
    this.#memory = memory;
    this.userAddress = Number(memory.address);
    context.buffers.add(this);
  }

  /** @internal Use `iommu.allocateDma()`. */
  static allocate(context: Context, length: number, options: AllocateOptions): DmaBuffer {
    context.requireOpen({ syscall: 'mmap' });
    const memory = context.kernel.allocate(length, options);
    if (typeof memory === 'number')
      throw failure(memory, { syscall: 'mmap', hint: options.hugePages ? NO_HUGE_PAGES[memory] : undefined });
    return new DmaBuffer(context, memory);
  }

  /**
   * @internal The whole pages in which an array of the program's own is; `bytes` are the array. It is kept from being
   * collected until close(); of what makes an engine move or free it otherwise, the program has to keep off.
   */
  static around(context: Context, bytes: Uint8Array<ArrayBuffer>): DmaBuffer {
    context.requireOpen({ syscall: 'mmap' });
    const page = BigInt(context.kernel.pageSize);
    const first = context.kernel.addressOf(bytes);
    const address = first - (first % page);
    const end = first + BigInt(bytes.length);
    const length = Number(((end - address + page - 1n) / page) * page);
    return new DmaBuffer(context, { bytes, address, length, fd: -1, free: () => {} });
  }

  /** The memory itself. Length 0 after close. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#memory.bytes;
  }

  /** Address of the first byte in this process; devices use IOVAs instead. */
  get address(): bigint {
    return this.#memory.address;
  }

  /** Bytes: the length asked for, rounded up to whole pages. */
  get length(): number {
    return this.#memory.length;
  }

  /** The memfd behind the memory (option `memfd`), or -1. */
  get fd(): number {
    return this.#memory.fd;
  }

  /** @internal */ override get label(): string {
    return 'the DMA buffer';
  }

  /** @internal The mapping exists now: close() will remove it first. */
  addMapping(mapping: Mapping): void {
    const before = this.#youngest;
    mapping.older = before;
    if (before) before.younger = mapping;
    this.#youngest = mapping;
  }

  /** @internal It does not exist any more. */
  removeMapping(mapping: Mapping): void {
    const { older, younger } = mapping;
    if (older) older.younger = younger;
    if (younger) younger.older = older;
    else this.#youngest = older;
    mapping.older = mapping.younger = undefined;
  }

  /** Memory that a device can still reach must not be freed. */
  protected override beforeClose(): void {
    while (this.#youngest) this.#youngest.unmap();
  }

  protected override release(): void {
    this.#context.buffers.delete(this);
    this.#memory.free();
  }
}
