import type { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import { DmaBuffer } from './dma-buffer';
import { failure, refusal } from './errors';
import type { FaultQueue } from './fault-queue';
import { runAll } from './handle';
import { IoAddressSpace, type TryAttach } from './io-address-space';
import { attempt, call } from './ioctl';
import { checkRange, readIovaRanges, writeAllowedRanges, type IovaRange, type IovaRangeInput } from './iova';
import { Mapping } from './mapping';
import { MappingIndex } from './mapping-index';
import { allocatePageTable, destroyPageTable, type PageTable } from './page-table';
import * as uapi from './uapi';

const U64_MAX = 2n ** 64n - 1n;

/** Options of a kernel-managed address space. */
export interface AddressSpaceOptions {
  /** Report page faults of attached devices here; the devices need PRI. Without it a missing page is an error. */
  faults?: FaultQueue | undefined;
  /** Let PASIDs of a device be attached (and the device itself, beside them). */
  pasid?: boolean | undefined;
  /** Let user-managed spaces nest on this one. */
  nestParent?: boolean | undefined;
  /** Of user-managed spaces only. */
  parent?: undefined;
  pageTable?: undefined;
}

/** Options of `AddressSpace.map`. */
export interface MapOptions {
  /** The IOVA to map at, in bytes. Without it the kernel chooses a free one. */
  iova?: bigint | number | undefined;
  /** First byte of the buffer to map. Default 0. */
  offset?: number | undefined;
  /** Bytes. Default: the rest of the buffer. */
  length?: number | undefined;
  /** Let devices read. Default true. */
  read?: boolean | undefined;
  /** Let devices write. Default true. */
  write?: boolean | undefined;
}

/**
 * A kernel-managed I/O address space: what its devices reach is what map() put there. An IOAS of iommufd,
 * with hardware page tables of its own where an option asks for something the automatic ones do not have.
 */
export class AddressSpace extends IoAddressSpace {
  /** The kernel's object ID (IOMMU_IOAS_ALLOC), for raw calls. */
  readonly ioasId: number;
  /** Whether user-managed spaces can nest on this one. */
  readonly nestParent: boolean;
  /** @internal User-managed spaces on top of this one; closed first. */
  readonly children = new Set<IoAddressSpace>();
  readonly #mappings = new MappingIndex();

  /** @internal Use `iommu.createAddressSpace()`. */
  constructor(context: Context, options: AddressSpaceOptions) {
    context.requireOpen({ request: 'IOMMU_IOAS_ALLOC' });
    options.faults?.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    super(context, { pasid: options.pasid ?? false, faults: options.faults });
    this.nestParent = options.nestParent ?? false;
    if (this.nestParent && this.faults)
      throw refusal('EOPNOTSUPP', 'a parent space cannot report faults', {
        request: 'IOMMU_HWPT_ALLOC',
        hint: 'give the fault queue to the user-managed space that nests on it',
      });
    this.ioasId = call(context.kernel, context.fd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    this.register();
  }

  /** The mappings there are, in the order of their IOVAs. */
  get mappings(): readonly Mapping[] {
    return [...this.#mappings];
  }

  /**
   * Lets devices reach `buffer`, or part of it, through this space.
   *
   * Throws IommuError: EINVAL (misaligned or reserved IOVA), EEXIST (range is taken), ENOSPC (no room),
   * EOVERFLOW, EFAULT, ENOMEM (locked-memory limit).
   */
  map(buffer: DmaBuffer, options: MapOptions = {}): Mapping {
    this.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    if (!(buffer instanceof DmaBuffer))
      throw new TypeError(
        'map takes a DmaBuffer from iommu.allocateDma(): other memory could be moved or freed while a device uses it',
      );
    buffer.requireOpen({ request: 'IOMMU_IOAS_MAP' });
    if (buffer.kernel !== this.context.kernel)
      throw new TypeError('the buffer belongs to another kernel than the address space');
    const { iova, offset = 0, read = true, write = true } = options;
    const length = options.length ?? buffer.length - offset;
    checkRange(offset, length, buffer.length);
    if (!read && !write) throw new RangeError('a mapping is readable, writable or both');
    const wanted = iova === undefined ? undefined : uapi.toU64(iova, 'iova');
    const { result, out } = attempt(
      this.context.kernel,
      this.context.fd,
      uapi.IOMMU_IOAS_MAP,
      {
        flags:
          (read ? uapi.IOMMU_IOAS_MAP_READABLE : 0) |
          (write ? uapi.IOMMU_IOAS_MAP_WRITEABLE : 0) |
          (wanted === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA),
        ioas_id: this.ioasId,
        user_va: buffer.address + BigInt(offset),
        length,
        iova: wanted ?? 0n,
      },
      buffer,
    );
    if (result < 0) throw this.#mapFailure(result, { iova: wanted, length, offset });
    const mapping = new Mapping(this, buffer, { iova: out.iova, length, offset, read, write });
    const old = this.#mappings.add(mapping);
    // One that a raw ioctl has unmapped.
    old?.buffer.mappings.delete(old);
    buffer.mappings.add(mapping);
    return mapping;
  }

  /** EINVAL has several causes; ask the kernel which applies. */
  #mapFailure(result: number, asked: { iova: bigint | undefined; length: number; offset: number }): Error {
    const hint = result === -uapi.errno.EINVAL ? this.#whyInvalid(asked) : undefined;
    return failure(result, { syscall: 'ioctl', request: 'IOMMU_IOAS_MAP', hint });
  }

  #whyInvalid(asked: { iova: bigint | undefined; length: number; offset: number }): string | undefined {
    const { iova, offset } = asked;
    const length = BigInt(asked.length);
    if (length === 0n) return 'the length must not be 0';
    const { alignment, ranges } = this.#ranges();
    const unit = `a multiple of ${alignment} bytes`;
    if (iova !== undefined && iova % alignment !== 0n) return `the IOVA ${hex(iova)} must be ${unit}`;
    if (length % alignment !== 0n) return `the length ${length} must be ${unit}`;
    if (BigInt(offset) % alignment !== 0n) return `the offset ${offset} must be ${unit}`;
    if (iova === undefined) return undefined;
    const end = iova + length;
    if (ranges.some((range) => range.iova <= iova && end <= range.iova + range.length)) return undefined;
    const usable = ranges.map((range) => span(range.iova, range.iova + range.length));
    return `${span(iova, end)} is not within what devices of this space reach: ${usable.join(', ')}`;
  }

  /**
   * Unmaps the whole mappings inside [iova, iova + length) and returns the bytes unmapped.
   *
   * Throws ENOENT, with nothing unmapped, if the range cuts a mapping or has none. (Asked to cut one, the
   * kernel has by then removed the mappings before it.)
   */
  unmap(iova: bigint | number, length: bigint | number): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    const start = uapi.toU64(iova, 'iova');
    const bytes = uapi.toU64(length, 'length');
    const end = start + bytes;
    const inside = bytes === 0n ? [] : this.#mappings.overlapping(start, end);
    for (const mapping of inside)
      if (mapping.iova < start || mapping.end > end)
        throw refusal(
          'ENOENT',
          `the range cuts the mapping at ${hex(mapping.iova)} of ${mapping.length} bytes`,
          { request: 'IOMMU_IOAS_UNMAP', hint: 'unmap takes whole mappings; nothing was unmapped' },
        );
    const unmapped = this.#unmap(start, bytes);
    for (const mapping of inside) this.#forget(mapping);
    return unmapped;
  }

  /** Unmaps everything and returns the bytes unmapped. */
  unmapAll(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_UNMAP' });
    const unmapped = this.#unmap(0n, U64_MAX);
    for (const mapping of this.mappings) this.#forget(mapping);
    return unmapped;
  }

  /** @internal Use `mapping.unmap()`. */
  unmapOne(mapping: Mapping): void {
    this.#unmap(mapping.iova, BigInt(mapping.length));
    this.#forget(mapping);
  }

  #unmap(iova: bigint, length: bigint): number {
    const values = { ioas_id: this.ioasId, iova, length };
    return Number(call(this.context.kernel, this.context.fd, uapi.IOMMU_IOAS_UNMAP, values).length);
  }

  #forget(mapping: Mapping): void {
    this.#mappings.remove(mapping);
    mapping.buffer.mappings.delete(mapping);
  }

  #ranges(): { alignment: bigint; ranges: IovaRange[] } {
    return readIovaRanges(this.context, this.ioasId);
  }

  /** The IOVAs that the attached devices' IOMMUs can translate, mapped or not. Attaching narrows them. */
  iovaRanges(): IovaRange[] {
    this.requireOpen({ request: 'IOMMU_IOAS_IOVA_RANGES' });
    return this.#ranges().ranges;
  }

  /** What IOVAs and lengths must be a multiple of, in bytes; 1 while nothing is attached. */
  get alignment(): number {
    this.requireOpen({ request: 'IOMMU_IOAS_IOVA_RANGES' });
    return Number(this.#ranges().alignment);
  }

  /**
   * Limits where map() without `iova` places mappings; an empty list lifts the limit. Ranges must not overlap
   * nor touch reserved addresses (EINVAL, EADDRINUSE).
   */
  allow(ranges: readonly IovaRangeInput[]): void {
    this.requireOpen({ request: 'IOMMU_IOAS_ALLOW_IOVAS' });
    writeAllowedRanges(this.context, this.ioasId, ranges);
  }

  /** @internal */
  override connect(device: BoundDevice, request: string, tryAttach: TryAttach): PageTable | undefined {
    if (!this.faults && !this.pasid && !this.nestParent) {
      const result = tryAttach(this.ioasId);
      if (result < 0) throw failure(result, { syscall: 'ioctl', request });
      return undefined;
    }
    const existing = this.tryExisting(request, tryAttach);
    if (existing) return existing;
    const table = this.#allocateFor(device);
    const result = tryAttach(table.id);
    if (result < 0) {
      destroyPageTable(this.context, table);
      throw failure(result, { syscall: 'ioctl', request });
    }
    this.tables.push(table);
    return this.use(table);
  }

  #allocateFor(device: BoundDevice): PageTable {
    const table = allocatePageTable(this.context, device.id, this.ioasId, {
      flags:
        (this.faults ? uapi.IOMMU_HWPT_FAULT_ID_VALID : 0) |
        (this.pasid ? uapi.IOMMU_HWPT_ALLOC_PASID : 0) |
        (this.nestParent ? uapi.IOMMU_HWPT_ALLOC_NEST_PARENT : 0),
      faultId: this.faults?.id ?? 0,
    });
    if (typeof table === 'number') throw failure(table, { syscall: 'ioctl', request: 'IOMMU_HWPT_ALLOC' });
    return table;
  }

  /** @internal The tables user-managed spaces can nest on; made with `makeParentTable` where none fits. */
  get parentTables(): readonly PageTable[] {
    return [...this.tables];
  }

  /** @internal A table for nesting that fits `device`; `destroyUnused` gives it back. */
  makeParentTable(device: BoundDevice): PageTable {
    const table = this.#allocateFor(device);
    this.tables.push(table);
    return table;
  }

  /** Closes the user-managed spaces on top first. */
  protected override release(): void {
    runAll([...[...this.children].map((child) => () => child.close()), () => super.release()]);
  }

  protected override releaseObjects(): void {
    destroy(this.context, this.ioasId);
    for (const mapping of this.mappings) this.#forget(mapping);
  }
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

/** First and last address of [start, end). */
function span(start: bigint, end: bigint): string {
  return `${hex(start)}-${hex(end - 1n)}`;
}
