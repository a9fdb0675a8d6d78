import type { AddressSpace } from './address-space';
import type { DmaBuffer } from './dma-buffer';
import type { MappedRange } from './iova';

/** A stretch of a buffer that devices attached to an address space reach at an IOVA. */
export class Mapping implements MappedRange {
  /** Where it is. */
  readonly space: AddressSpace;
  /** First I/O virtual address. */
  readonly iova: bigint;
  /** Bytes. */
  readonly length: number;
  readonly buffer: DmaBuffer;
  /** Offset of the first mapped byte in the buffer. */
  readonly offset: number;
  /** Whether devices may read. */
  readonly read: boolean;
  /** Whether devices may write. */
  readonly write: boolean;

  /** @internal The mappings of the buffer that were made before and after this one, while it is mapped. */
  older: Mapping | undefined = undefined;
  /** @internal */
  younger: Mapping | undefined = undefined;
  #mapped = true;

  /** @internal Use `space.map()`. */
  constructor(
    space: AddressSpace,
    buffer: DmaBuffer,
    values: { iova: bigint; length: number; offset: number; read: boolean; write: boolean },
  ) {
    this.space = space;
    this.buffer = buffer;
    this.iova = values.iova;
    this.length = values.length;
    this.offset = values.offset;
    this.read = values.read;
    this.write = values.write;
    buffer.addMapping(this);
  }

  /** The first IOVA after the mapping. */
  get end(): bigint {
    return this.iova + BigInt(this.length);
  }

  /** Whether devices still reach the memory this way. */
  get mapped(): boolean {
    return this.#mapped;
  }

  /** Removes the mapping. Does nothing if it is gone already. */
  unmap(): void {
    if (this.#mapped) this.space.unmapOne(this);
  }

  /** @internal It is gone. */
  forget(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.buffer.removeMapping(this);
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}
