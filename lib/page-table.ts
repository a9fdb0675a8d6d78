/** Hardware page tables (HWPT): the kernel objects that an address space needs one of per IOMMU. */
import { destroy, type Context } from './context';
import { attempt } from './ioctl';
import { IOMMU_HWPT_ALLOC } from './uapi';

/** One HWPT and how many use it: attached slots, and user-managed tables nested on it. */
export class PageTable {
  /** The kernel's object ID. */
  readonly id: number;
  /** The table whose input space this one's output addresses are in. */
  readonly parent: PageTable | undefined;
  users = 0;

  constructor(id: number, parent?: PageTable) {
    this.id = id;
    this.parent = parent;
    if (parent) parent.users++;
  }
}

/** What IOMMU_HWPT_ALLOC takes, besides whom it is for. */
export interface PageTableForm {
  readonly flags: number;
  readonly faultId: number;
  readonly dataType?: number;
  readonly data?: { readonly address: bigint; readonly length: number; readonly bytes: Uint8Array };
}

/** IOMMU_HWPT_ALLOC: a HWPT, or the negative errno. `parent` is the PageTable below, or an IOAS ID. */
export function allocatePageTable(
  context: Context,
  deviceId: number,
  parent: PageTable | number,
  form: PageTableForm,
): PageTable | number {
  const under = typeof parent === 'number' ? undefined : parent;
  const { result, out } = attempt(
    context.kernel,
    context.fd,
    IOMMU_HWPT_ALLOC,
    {
      flags: form.flags,
      dev_id: deviceId,
      pt_id: typeof parent === 'number' ? parent : parent.id,
      fault_id: form.faultId,
      data_type: form.dataType ?? 0,
      data_len: form.data?.length ?? 0,
      data_uptr: form.data?.address ?? 0n,
    },
    form.data?.bytes,
  );
  return result < 0 ? result : new PageTable(out.out_hwpt_id, under);
}

/** IOMMU_DESTROY of a HWPT nobody uses. */
export function destroyPageTable(context: Context, table: PageTable): void {
  destroy(context, table.id);
  if (table.parent) table.parent.users--;
}
