/**
 * Devices of the kernel's own mock IOMMU (CONFIG_IOMMUFD_TEST): no hardware, no DMA, but everything iommufd does
 * with a device, page faults included. Behaviour: drivers/iommu/iommufd/selftest.c of Linux 7.3.
 */
import { BoundDevice } from './bound-device';
import { destroy, type Context } from './context';
import type { DmaBuffer } from './dma-buffer';
import { refusal } from './errors';
import { runAll } from './handle';
import { attempt, call, refused } from './ioctl';
import { checkRange } from './iova';
import { allocatePageTable, destroyPageTable, PageTable } from './page-table';
import * as uapi from './uapi';

/** A page fault to raise. */
export interface MockFault {
  /** Carried by the request; without it, none. */
  pasid?: number | undefined;
  /** The address asked for. */
  address: bigint | number;
  /** Page request group index. Default 0; every mock fault is the last of its group. */
  group?: number | undefined;
  /** Default: read and write. */
  permissions?: { read?: boolean; write?: boolean; execute?: boolean; privileged?: boolean } | undefined;
}

/** A device of the kernel's mock IOMMU. Its IOVAs are in [2^24, 2^31), its pages are 2 KiB. */
export class MockDevice extends BoundDevice {
  protected override readonly attachRequest = 'IOMMU_TEST_CMD';
  protected override readonly detachRequest = 'IOMMU_TEST_CMD';
  /** Object ID of the mock itself, which test commands take. */
  readonly stdevId: number;
  /** A mock device is attached from birth to death: to this empty IOAS when it is attached to nothing. */
  readonly #parkingIoasId: number;
  /** For devices with PASIDs: their own slot must be on a table that allows PASIDs beside it. */
  readonly #parkingTable: PageTable | undefined;

  /** @internal Use `iommu.createMockDevice()`. */
  constructor(
    context: Context,
    cookie: bigint,
    made: { id: number; stdevId: number; parkingIoasId: number; parkingTable: PageTable | undefined },
  ) {
    super(context, cookie, made.id);
    this.stdevId = made.stdevId;
    this.#parkingIoasId = made.parkingIoasId;
    this.#parkingTable = made.parkingTable;
  }

  override get name(): string {
    return `mock device ${this.stdevId}`;
  }

  protected override attachTo(ptId: number, pasid: number | undefined, replace: boolean): number {
    if (pasid === undefined) return replaceDomain(this.context, this.stdevId, ptId);
    const op = replace ? uapi.IOMMU_TEST_OP_PASID_REPLACE : uapi.IOMMU_TEST_OP_PASID_ATTACH;
    const { kernel, fd } = this.context;
    const values = { op, id: this.stdevId, pasid_attach: { pasid, pt_id: ptId } };
    const { result, out } = attempt(kernel, fd, uapi.IOMMU_TEST_CMD, values);
    return result < 0 ? result : out.pasid_attach.pt_id;
  }

  protected override hintNoSnoop(): void {
    throw refusal('EOPNOTSUPP', `${this.name} has no VFIO file to say it to`, {
      request: 'VFIO_DEVICE_NO_SNOOP_HINT',
      hint: 'leave noSnoop out',
    });
  }

  protected override detachFrom(pasid: number | undefined): number {
    if (pasid === undefined)
      return Math.min(
        0,
        replaceDomain(this.context, this.stdevId, this.#parkingTable?.id ?? this.#parkingIoasId),
      );
    return attempt(this.context.kernel, this.context.fd, uapi.IOMMU_TEST_CMD, {
      op: uapi.IOMMU_TEST_OP_PASID_DETACH,
      id: this.stdevId,
      pasid_detach: { pasid },
    }).result;
  }

  /**
   * Raises a page fault (IOMMU_TEST_OP_TRIGGER_IOPF). It reaches the fault queue of the space attached to its
   * slot; without one, the kernel answers 'invalid' at once and nobody hears of it.
   */
  triggerFault(fault: MockFault): void {
    this.requireOpen({ request: 'IOMMU_TEST_CMD' });
    const { read = true, write = true, execute = false, privileged = false } = fault.permissions ?? {};
    call(this.context.kernel, this.context.fd, uapi.IOMMU_TEST_CMD, {
      op: uapi.IOMMU_TEST_OP_TRIGGER_IOPF,
      trigger_iopf: {
        dev_id: this.id,
        pasid: fault.pasid ?? 0,
        grpid: fault.group ?? 0,
        perm:
          (read ? uapi.IOMMU_PGFAULT_PERM_READ : 0) |
          (write ? uapi.IOMMU_PGFAULT_PERM_WRITE : 0) |
          (execute ? uapi.IOMMU_PGFAULT_PERM_EXEC : 0) |
          (privileged ? uapi.IOMMU_PGFAULT_PERM_PRIV : 0),
        addr: uapi.toU64(fault.address, 'address'),
      },
    });
  }

  /**
   * Whether the device's page table translates `iova` to this memory (IOMMU_TEST_OP_MD_CHECK_MAP). `iova`,
   * `offset` and `length` are multiples of 2048. False too when nothing is attached.
   */
  translates(
    iova: bigint | number,
    buffer: DmaBuffer,
    options: { pasid?: number; offset?: number; length?: number } = {},
  ): boolean {
    this.requireOpen({ request: 'IOMMU_TEST_CMD' });
    const { offset = 0, length = buffer.length - offset } = options;
    checkRange(offset, length, buffer.length);
    const start = uapi.toU64(iova, 'iova');
    if (
      start % BigInt(uapi.MOCK_PAGE_SIZE) !== 0n ||
      offset % uapi.MOCK_PAGE_SIZE ||
      length % uapi.MOCK_PAGE_SIZE
    )
      throw new RangeError(`iova, offset and length must be multiples of ${uapi.MOCK_PAGE_SIZE}`);
    const table = this.tableId(options.pasid);
    if (table === undefined) return false;
    const check_map = { iova: start, length, uptr: buffer.address + BigInt(offset) };
    const values = { op: uapi.IOMMU_TEST_OP_MD_CHECK_MAP, id: table, check_map };
    const { result } = attempt(this.context.kernel, this.context.fd, uapi.IOMMU_TEST_CMD, values, buffer);
    if (result === -uapi.errno.EINVAL) return false;
    if (result < 0) throw refused(this.context.kernel, uapi.IOMMU_TEST_CMD, values, result);
    return true;
  }

  /**
   * Marks [iova, iova + length) as written by the device (IOMMU_TEST_OP_DIRTY): multiples of 2048 bytes. Throws
   * IommuError EINVAL where what is attached does not track, or nothing is.
   */
  markDirty(iova: bigint | number, length: number, options: { pasid?: number } = {}): void {
    this.requireOpen({ request: 'IOMMU_TEST_CMD' });
    if (length % uapi.MOCK_PAGE_SIZE)
      throw new RangeError(`length must be a multiple of ${uapi.MOCK_PAGE_SIZE}`);
    const bitmap = new Uint8Array(Math.ceil(length / uapi.MOCK_PAGE_SIZE / 8)).fill(0xff);
    const { kernel, fd } = this.context;
    const dirty = {
      iova: uapi.toU64(iova, 'iova'),
      length,
      page_size: uapi.MOCK_PAGE_SIZE,
      uptr: kernel.addressOf(bitmap),
    };
    const id = this.tableId(options.pasid) ?? 0;
    call(kernel, fd, uapi.IOMMU_TEST_CMD, { op: uapi.IOMMU_TEST_OP_DIRTY, id, dirty }, bitmap);
  }

  /**
   * Has the device's virtual IOMMU report an event about it (IOMMU_TEST_OP_TRIGGER_VEVENT): 4 bytes, the virtual ID. The
   * device must be attached to a page table nested on the virtual IOMMU.
   */
  triggerVirtualEvent(): void {
    this.requireOpen({ request: 'IOMMU_TEST_CMD' });
    call(this.context.kernel, this.context.fd, uapi.IOMMU_TEST_CMD, {
      op: uapi.IOMMU_TEST_OP_TRIGGER_VEVENT,
      trigger_vevent: { dev_id: this.id },
    });
  }

  protected override unbind(): void {
    const table = this.#parkingTable;
    runAll([
      () => destroy(this.context, this.stdevId),
      () => table && destroyPageTable(this.context, table),
      () => destroy(this.context, this.#parkingIoasId),
    ]);
  }
}

/** IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE: the ID of the HWPT now in use, or a negative errno. */
function replaceDomain(context: Context, stdevId: number, ptId: number): number {
  const { result, out } = attempt(context.kernel, context.fd, uapi.IOMMU_TEST_CMD, {
    op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
    id: stdevId,
    mock_domain_replace: { pt_id: ptId },
  });
  return result < 0 ? result : out.mock_domain_replace.pt_id;
}

/** Makes a mock device, parked. `cookie` is checked already. Throws IommuError and leaves nothing behind. */
export function createMockDevice(context: Context, cookie: bigint, pasid: boolean): MockDevice {
  const { kernel, fd } = context;
  const made: number[] = [];
  const undo = () => runAll(made.reverse().map((id) => () => destroy(context, id)));
  try {
    const parkingIoasId = call(kernel, fd, uapi.IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    made.push(parkingIoasId);
    const { out_stdev_id: stdevId, out_idev_id: id } = call(kernel, fd, uapi.IOMMU_TEST_CMD, {
      op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
      id: parkingIoasId,
      mock_domain_flags: { dev_flags: pasid ? uapi.MOCK_FLAGS_DEVICE_PASID : 0 },
    }).mock_domain_flags;
    made.push(stdevId);
    const parkingTable = pasid ? parkBesidePasids(context, id, stdevId, parkingIoasId, made) : undefined;
    return new MockDevice(context, cookie, { id, stdevId, parkingIoasId, parkingTable });
  } catch (error) {
    undo();
    throw error;
  }
}

function parkBesidePasids(
  context: Context,
  id: number,
  stdevId: number,
  ioasId: number,
  made: number[],
): PageTable {
  const table = allocatePageTable(context, id, { id: ioasId }, { pasid: true });
  if (!(table instanceof PageTable)) throw table;
  // The device uses the table, so it goes before it: destroyed in reverse order.
  made.splice(made.length - 1, 0, table.id);
  const result = replaceDomain(context, stdevId, table.id);
  if (result < 0)
    throw refusal('EOPNOTSUPP', 'the mock device cannot be parked', { request: 'IOMMU_TEST_CMD' });
  return table;
}
