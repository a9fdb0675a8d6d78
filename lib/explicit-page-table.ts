/** Page tables that a user makes by hand: IOMMU_HWPT_ALLOC on an address space, a page table or a virtual IOMMU. */
import type { BoundDevice } from './bound-device';
import type { Context } from './context';
import { FaultQueue } from './fault-queue';
import { KernelManagedSpace } from './kernel-managed-space';
import { allocatePageTable, PageTable, type Base, type PageTableForm } from './page-table';
import { encodeUserPageTable, type UserPageTable } from './table-data';
import { VirtualIommu } from './virtual-iommu';

/** Options of `iommu.createPageTable`. */
export interface PageTableOptions extends PageTableForm {
  /**
   * What it is made on. An address space: the table has its mappings. A page table with `nestParent`, or a virtual IOMMU:
   * the user keeps the table, and its output addresses are translated by the parent.
   */
  parent: KernelManagedSpace | PageTable | VirtualIommu;
  /** The table that the user keeps; on an address space, what a particular driver wants to know. */
  pageTable?: UserPageTable | undefined;
}

/** Throws TypeError, RangeError, IommuError. */
export function createPageTable(context: Context, device: BoundDevice, options: PageTableOptions): PageTable {
  const request = 'IOMMU_HWPT_ALLOC';
  if (!context.devices.has(device)) throw new TypeError('the device must be one bound to this Iommu');
  const { parent, pageTable, faults } = options;
  const base = baseOf(parent, device);
  if (parent.context !== context) throw new TypeError(`${parent.label} belongs to another Iommu`);
  parent.requireOpen({ request });
  if (faults !== undefined && !(faults instanceof FaultQueue))
    throw new TypeError('faults must be a queue from iommu.createFaultQueue()');
  faults?.requireOpen({ request });
  if (faults && !context.queues.has(faults)) throw new TypeError('the fault queue belongs to another Iommu');
  if (!base.space && pageTable === undefined)
    throw new TypeError('a nested page table needs pageTable, such as { address, width }');
  const data = pageTable && encodeUserPageTable(pageTable);
  const table = allocatePageTable(context, device.id, base, options, data);
  if (!(table instanceof PageTable)) throw table;
  return table;
}

function baseOf(parent: PageTableOptions['parent'], device: BoundDevice): Base {
  if (parent instanceof KernelManagedSpace) return { ...parent.baseFor(device), owner: parent };
  if (parent instanceof PageTable) return { id: parent.id, owner: parent, parent };
  if (parent instanceof VirtualIommu) return { id: parent.id, owner: parent, parent: parent.parent };
  throw new TypeError('parent must be an AddressSpace, a PageTable or a VirtualIommu');
}
