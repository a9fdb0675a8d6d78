/**
 * Attach data, as the RFC calls it: what each attach leaves behind, found again when a fault arrives.
 *
 * A raw fault names a routing slot: the device it came from and the PASID it carried. For a mediated device
 * the requester is its parent's, so the slot alone does not say who faulted. The slot was filled by an
 * attach, and the attach knows: the cookie of the device and the IOASID it was attached to. No slot can be
 * filled twice, so the answer is unique.
 */

/** PASID of a slot for requests without one: the kernel's IOMMU_NO_PASID. */
export const NO_PASID = 0;
/** PASIDs are 20 bits wide (PCIe base specification, PASID TLP prefix). */
export const PASID_LIMIT = 2 ** 20;

/** What an attach leaves at its slot. */
export interface AttachData {
  /** The user's name for the device. */
  readonly cookie: bigint;
  /** The I/O address space attached. */
  readonly ioasid: number;
}

/** Slots by [device, PASID]. `device` is the kernel's dev_id, a 32-bit number. */
export class AttachTable<T extends AttachData = AttachData> {
  readonly #slots = new Map<number, T>();

  /** Fills a slot. Throws Error if it is taken: two devices behind one slot could not be told apart. */
  add(device: number, pasid: number, data: T): void {
    const key = slot(device, pasid);
    if (this.#slots.has(key)) throw new Error(`slot [device ${device}, PASID ${pasid}] is taken`);
    this.#slots.set(key, data);
  }

  /** Empties a slot; false if it was empty. */
  remove(device: number, pasid: number): boolean {
    return this.#slots.delete(slot(device, pasid));
  }

  /** What fills exactly this slot. */
  get(device: number, pasid: number): T | undefined {
    return this.#slots.get(slot(device, pasid));
  }

  /**
   * Who a fault {device, pasid} belongs to: the slot's own attach data; else that of the device's slot without
   * PASID, which stands for every PASID when its address space is a whole PASID table owned by the user (the
   * kernel routes such faults there). Undefined: nobody is attached any more.
   */
  find(device: number, pasid: number): T | undefined {
    // A user's own PASID table may be wider than any slot this package fills.
    const exact = pasid < PASID_LIMIT ? this.get(device, pasid) : undefined;
    return exact ?? this.get(device, NO_PASID);
  }
}

function slot(device: number, pasid: number): number {
  if (!(Number.isInteger(pasid) && pasid >= 0 && pasid < PASID_LIMIT))
    throw new RangeError(`PASID ${pasid} is outside 0 to ${PASID_LIMIT - 1}`);
  if (!(Number.isInteger(device) && device >= 0 && device < 2 ** 32))
    throw new RangeError(`device ID ${device} is outside 0 to 2^32 - 1`);
  return device * PASID_LIMIT + pasid;
}
