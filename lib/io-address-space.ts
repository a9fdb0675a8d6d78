import { AttachTarget, type AttachAttempt, type Attachment } from './attach-target';
import type { Context } from './context';
import type { FaultQueue } from './fault-queue';
import { runAll } from './handle';
import { destroyPageTable, type PageTable } from './page-table';
import { errno } from './uapi';

/**
 * What kernel-managed and user-managed I/O address spaces have in common: they make the page tables that attaching
 * needs, one for each IOMMU, and let them go with their last user.
 */
export abstract class IoAddressSpace extends AttachTarget {
  /** @internal The page tables that attaching made, oldest first. */
  protected readonly tables: PageTable[] = [];

  /** @internal */
  protected constructor(context: Context, options: { pasid: boolean; faults: FaultQueue | undefined }) {
    super(context, options);
  }

  /** @internal */
  override get label(): string {
    return `address space ${this.ioasid}`;
  }

  override get pageTableIds(): readonly number[] {
    return this.tables.map(({ id }) => id);
  }

  /** @internal Call at the end of a subclass's constructor, when nothing can fail any more. */
  protected register(): void {
    this.context.spaces.add(this);
    this.context.ioasids.add(this.ioasid);
    this.faults?.users.add(this);
  }

  /** @internal Destroys the table after its last user. */
  override removeAttachment(attachment: Attachment, table: PageTable | undefined): void {
    super.removeAttachment(attachment, table);
    if (table) this.destroyUnused(table);
  }

  /** @internal Tries the tables there are; undefined if the IOMMU of the device fits none (EINVAL), as the kernel does for its own. */
  protected tryExisting(attempt: AttachAttempt): PageTable | undefined {
    for (const table of this.tables) {
      const result = attempt.attach(table.id);
      if (result >= 0) return table;
      if (result !== -errno.EINVAL) throw attempt.failure(result);
    }
    return undefined;
  }

  /** @internal Destroys a table of this space unless something uses it. */
  destroyUnused(table: PageTable): void {
    const at = this.tables.indexOf(table);
    if (table.users.size > 0 || at < 0) return;
    this.tables.splice(at, 1);
    destroyPageTable(this.context, table);
  }

  /** Detaches everybody, then gives the space back. */
  protected override release(): void {
    runAll([
      ...this.detachments(),
      () => this.releaseObjects(),
      () => {
        this.context.spaces.delete(this);
        this.context.ioasids.delete(this.ioasid);
        this.faults?.users.delete(this);
      },
    ]);
  }

  /** Destroys the kernel objects, once nothing is attached. */
  protected abstract releaseObjects(): void;
}
