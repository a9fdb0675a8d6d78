/** The kinds of address spaces, with one way to map and unmap pages in each. */
import { GuestTable } from '../../examples/flows/guest-table';
import type { AddressSpace, DmaBuffer, Iommu, NestedAddressSpace, UserAddressSpace } from '../../lib';
import type { Random } from '../../scripts/conformance/random';
import { PAGE, type Mapped } from './model';

export interface Rights {
  readonly read: boolean;
  readonly write: boolean;
}

const READ_WRITE: Rights = { read: true, write: true };
const READ: Rights = { read: true, write: false };
const WRITE: Rights = { read: false, write: true };

export abstract class TestSpace {
  abstract readonly object: AddressSpace | NestedAddressSpace | UserAddressSpace;
  /** The rights that mappings can have. */
  readonly rights: readonly Rights[] = [READ_WRITE, READ_WRITE, READ, WRITE];

  constructor(
    readonly id: number,
    readonly owner: number,
    readonly faults: boolean,
    readonly parent?: TestSpace,
  ) {}

  /** Maps pages from `first` on to those of `source`; what the model has to know. */
  abstract map(first: number, count: number, source: Source, rights: Rights): Mapped[];
  close(): void {
    this.object.close();
  }

  /** Removes something: its first page and how many; undefined if there is nothing. */
  abstract unmap(random: Random): { first: number; count: number } | undefined;
}

/** Where mapped pages lead: pages of a buffer, or of the parent space. */
export interface Source {
  readonly buffer: { readonly id: number; readonly object: DmaBuffer; readonly page: number } | undefined;
  readonly parentPage: number;
}

type Removable = { readonly iova: bigint; readonly length: number; unmap(): void };

function unmapOne(
  mappings: readonly Removable[],
  random: Random,
): { first: number; count: number } | undefined {
  if (mappings.length === 0) return undefined;
  const mapping = random.pick(mappings);
  const removed = { first: Number(mapping.iova) / PAGE, count: mapping.length / PAGE };
  mapping.unmap();
  return removed;
}

/** Kernel-managed, of buffers. */
export class RootSpace extends TestSpace {
  /** As a parent of the guest's own tables. */
  readonly nestParent: boolean;
  override readonly rights: readonly Rights[];

  constructor(
    id: number,
    owner: number,
    faults: boolean,
    readonly object: AddressSpace,
  ) {
    super(id, owner, faults);
    this.nestParent = object.nestParent;
    // A parent in hardware has no read-only pages (erratum 772415).
    this.rights = this.nestParent ? [READ_WRITE] : [READ_WRITE, READ_WRITE, READ, WRITE];
  }

  override map(first: number, count: number, { buffer }: Source, rights: Rights): Mapped[] {
    const { id, object, page } = buffer!;
    const where = { iova: first * PAGE, offset: page * PAGE, length: count * PAGE };
    this.object.map(object, { ...where, ...rights });
    return Array.from({ length: count }, (_, i) => ({ buffer: id, page: page + i, ...rights }));
  }

  override unmap(random: Random): { first: number; count: number } | undefined {
    // The guest's tables stay: what a device does while they are gone is up to the IOMMU.
    return unmapOne(
      this.object.mappings.filter(
        ({ iova }) => Number(iova) / PAGE < TABLE_PAGE || Number(iova) / PAGE > LAST_TABLE,
      ),
      random,
    );
  }
}

/** Kernel-managed, nested in software. */
export class SoftSpace extends TestSpace {
  constructor(
    id: number,
    parent: TestSpace,
    faults: boolean,
    readonly object: NestedAddressSpace,
  ) {
    super(id, parent.owner, faults, parent);
  }

  override map(first: number, count: number, { parentPage }: Source, rights: Rights): Mapped[] {
    const range = { iova: parentPage * PAGE, length: count * PAGE };
    this.object.map(range, { iova: first * PAGE, ...rights });
    return Array.from({ length: count }, (_, i) => ({ page: parentPage + i, ...rights }));
  }

  override unmap(random: Random): { first: number; count: number } | undefined {
    return unmapOne(this.object.mappings, random);
  }
}

/** Where a guest keeps its table, in its parent's space. */
const TABLE_PAGE = 0x400;
const TABLE_PAGES = 8;
const LAST_TABLE = TABLE_PAGE + TABLE_PAGES - 1;

/** User-managed: nested in hardware. */
export class GuestSpace extends TestSpace {
  override readonly rights = [READ_WRITE, READ_WRITE, READ];
  readonly object: UserAddressSpace;
  readonly #memory: DmaBuffer;
  readonly #table: GuestTable;
  readonly #mapped = new Set<number>();

  constructor(id: number, iommu: Iommu, parent: RootSpace) {
    super(id, parent.owner, false, parent);
    this.#memory = iommu.allocateDma(TABLE_PAGES * PAGE);
    parent.object.map(this.#memory, { iova: TABLE_PAGE * PAGE });
    this.#table = new GuestTable(this.#memory, 0, BigInt(TABLE_PAGE * PAGE));
    const pageTable = { address: TABLE_PAGE * PAGE, width: 48 } as const;
    this.object = iommu.createAddressSpace({ owner: 'user', parent: parent.object, pageTable, pasid: true });
  }

  override map(first: number, count: number, { parentPage }: Source, rights: Rights): Mapped[] {
    return Array.from({ length: count }, (_, i) => {
      this.#table.set(BigInt((first + i) * PAGE), BigInt((parentPage + i) * PAGE), rights.write);
      this.#mapped.add(first + i);
      return { page: parentPage + i, ...rights };
    });
  }

  override close(): void {
    super.close();
    this.#memory.close();
  }

  /** What was present is invalidated at once: what devices reach before that is the guest's own affair. */
  override unmap(random: Random): { first: number; count: number } | undefined {
    if (this.#mapped.size === 0) return undefined;
    const first = random.pick([...this.#mapped]);
    this.#mapped.delete(first);
    this.#table.set(BigInt(first * PAGE), undefined);
    const range = { iova: first * PAGE, length: PAGE };
    this.object.invalidate(random.oneIn(3) ? 'all' : { range, leaf: random.oneIn(2) });
    return { first, count: 1 };
  }
}
