import type { BoundDevice } from './bound-device';
import { lowestFree, type Context } from './context';
import { failure } from './errors';
import type { FaultQueue } from './fault-queue';
import { Handle, runAll } from './handle';
import { destroyPageTable, PageTable } from './page-table';
import { errno } from './uapi';

/** One device, or one PASID of it, that uses an address space. */
export interface Attachment {
  readonly device: BoundDevice;
  /** undefined: the device's requests without PASID. */
  readonly pasid: number | undefined;
}

/** Attaches a page table or IOAS by its object ID: 0 or more, or a negative errno. */
export type TryAttach = (ptId: number) => number;

/** What kernel-managed and user-managed I/O address spaces have in common: a number, and users. */
export abstract class IoAddressSpace extends Handle {
  /** This Iommu's number for the address space: what fault reports carry. Lowest free from 1. */
  readonly ioasid: number;
  /** Whether PASIDs of a device can be attached. */
  readonly pasid: boolean;
  /** Where page faults of attached devices are reported. */
  readonly faults: FaultQueue | undefined;
  /** @internal */
  readonly context: Context;
  readonly #attachments = new Set<Attachment>();
  /** @internal The hardware page tables of this space, in the order they were made. */
  protected readonly tables: PageTable[] = [];

  /** @internal */
  protected constructor(context: Context, options: { pasid: boolean; faults: FaultQueue | undefined }) {
    super();
    this.context = context;
    this.pasid = options.pasid;
    this.faults = options.faults;
    this.ioasid = lowestFree([...context.spaces].map((space) => space.ioasid));
  }

  /** The devices and PASIDs attached now. */
  get attachments(): readonly Attachment[] {
    return [...this.#attachments];
  }

  protected override get label(): string {
    return `address space ${this.ioasid}`;
  }

  /** @internal Call at the end of a subclass's constructor, when nothing can fail any more. */
  protected register(): void {
    this.context.spaces.add(this);
    this.faults?.spaces.add(this);
  }

  /**
   * @internal Attaches `device`: existing tables first, a new one where none fits its IOMMU. Returns the
   * table used, undefined for one of the kernel's own. Throws IommuError and leaves nothing behind.
   */
  abstract connect(device: BoundDevice, request: string, tryAttach: TryAttach): PageTable | undefined;

  /** @internal Records an attachment. */
  addAttachment(attachment: Attachment): void {
    this.#attachments.add(attachment);
  }

  /** @internal The attachment is gone in the kernel: forget it, and destroy its table after its last user. */
  removeAttachment(attachment: Attachment, table: PageTable | undefined): void {
    this.#attachments.delete(attachment);
    if (!table) return;
    table.users--;
    this.destroyUnused(table);
  }

  /** @internal Tries the tables there are; undefined if the IOMMU of the device fits none (EINVAL), as the kernel does for its own. */
  protected tryExisting(request: string, tryAttach: TryAttach): PageTable | undefined {
    for (const table of this.tables) {
      const result = tryAttach(table.id);
      if (result >= 0) return this.use(table);
      if (result !== -errno.EINVAL) throw failure(result, { syscall: 'ioctl', request });
    }
    return undefined;
  }

  /** @internal */
  protected use(table: PageTable): PageTable {
    table.users++;
    return table;
  }

  /** @internal Destroys a table of this space unless something uses it. */
  destroyUnused(table: PageTable): void {
    const at = this.tables.indexOf(table);
    if (table.users > 0 || at < 0) return;
    this.tables.splice(at, 1);
    destroyPageTable(this.context, table);
  }

  /** Detaches everybody, then gives the space back. */
  protected override release(): void {
    runAll([
      ...this.attachments.map(
        ({ device, pasid }) =>
          () =>
            device.detach({ pasid }),
      ),
      () => this.releaseObjects(),
      () => {
        this.context.spaces.delete(this);
        this.faults?.spaces.delete(this);
      },
    ]);
  }

  /** Destroys the kernel objects, once nothing is attached. */
  protected abstract releaseObjects(): void;
}
