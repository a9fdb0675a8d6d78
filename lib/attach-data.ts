/**
 * Attach data, as the RFC calls it (sections 1.2 and 4.6): what each attach leaves behind, found again when a fault
 * arrives.
 *
 * A raw fault {rid, pasid, addr} names a routing slot, [RID] or [RID, PASID], and not who faulted: the RID of a mediated
 * device is its parent's. The slot was filled by an attach, and the attach knows the device, its cookie, and the IOASID.
 * No slot is filled twice, so the answer is unique.
 *
 * In place of the RID, mainline's fault records carry the number of the device that was bound (`dev_id`). Either will do
 * as long as it names the physical device.
 */
import { refusal } from './errors';

/** PASID of a slot for requests without one: the kernel's IOMMU_NO_PASID. */
export const NO_PASID = 0;
/** PASIDs are 20 bits wide (PCIe base specification, PASID TLP prefix). */
export const PASID_LIMIT = 2 ** 20;

/** What a bind makes, in the context that the table belongs to: the RFC's iommu_dev. */
export interface IommuDev {
  /** Names the *physical* device: for a mediated device, its parent. 32 bits. */
  readonly rid: number;
  /** What requests carry by which the hardware knows this device; NO_PASID for one that has the RID to itself. */
  readonly defaultPasid: number;
  /** The user's name for the device: 64 bits. */
  readonly cookie: bigint;
}

/** What an attach leaves at its slot. */
export interface AttachData {
  readonly device: IommuDev;
  /** The PASID of the slot. */
  readonly pasid: number;
  /** The I/O address space attached. */
  readonly ioasid: number;
}

/** A fault as hardware reports it; without a PASID, NO_PASID. */
export interface RawFault {
  readonly rid: number;
  readonly pasid: number;
  readonly addr: bigint;
}

/** What its user is told. */
export interface ResolvedFault {
  readonly ioasid: number;
  readonly cookie: bigint;
  readonly addr: bigint;
}

/** Who has to know of slots that are filled and emptied: what stamps faults with them. */
export interface SlotFollower {
  slotFilled(data: AttachData): void;
  slotEmptied(data: AttachData): void;
}

/** Slots by [RID, PASID]. */
export class AttachTable {
  readonly #slots = new Map<number, AttachData>();
  readonly #followers = new Set<SlotFollower>();

  /** Tells `follower` of what is there, and of every change from now on. */
  follow(follower: SlotFollower): void {
    this.#followers.add(follower);
    for (const data of this.#slots.values()) follower.slotFilled(data);
  }

  unfollow(follower: SlotFollower): void {
    this.#followers.delete(follower);
  }

  /**
   * Throws EEXIST, naming both cookies, if another device has the slot that this one would fill with `pasid` (without one,
   * with its default PASID): nobody could tell their faults apart. To be asked before the kernel is.
   */
  check(device: IommuDev, pasid: number | undefined): void {
    const other = this.#slots.get(slot(device, pasid))?.device;
    if (!other || other.cookie === device.cookie) return;
    throw refusal(
      'EEXIST',
      `device 0x${device.cookie.toString(16)} would fill the routing slot of device 0x${other.cookie.toString(16)}, ` +
        'and their faults could not be told apart',
      { hint: 'detach the other first; in different virtual machines both can be attached' },
    );
  }

  /** Fills a slot. Throws EEXIST if it is taken, by whomever. */
  add(device: IommuDev, pasid: number | undefined, ioasid: number): AttachData {
    const key = slot(device, pasid);
    const old = this.#slots.get(key);
    if (old) {
      this.check(device, pasid);
      throw refusal(
        'EEXIST',
        `device 0x${device.cookie.toString(16)} is attached to IOASID ${old.ioasid} in this slot`,
      );
    }
    const data = { device, pasid: pasid ?? device.defaultPasid, ioasid };
    this.#slots.set(key, data);
    for (const follower of this.#followers) follower.slotFilled(data);
    return data;
  }

  /** Empties a slot; what was there. */
  remove(device: IommuDev, pasid: number | undefined): AttachData | undefined {
    const key = slot(device, pasid);
    const data = this.#slots.get(key);
    this.#slots.delete(key);
    if (data) for (const follower of this.#followers) follower.slotEmptied(data);
    return data;
  }

  /**
   * Who a fault of the slot belongs to: the slot's own attach data; else that of the slot without PASID, which stands for
   * every PASID when its address space is a whole PASID table owned by the user (the kernel routes such faults there).
   * Undefined: nobody is attached any more.
   */
  find(rid: number, pasid: number): AttachData | undefined {
    // A user's own PASID table may be wider than any slot this package fills.
    const exact = pasid < PASID_LIMIT ? this.#slots.get(key(rid, pasid)) : undefined;
    return exact ?? this.#slots.get(key(rid, NO_PASID));
  }

  /** The question of the RFC: which IOASID and whose fault? Undefined as for `find`. */
  resolve({ rid, pasid, addr }: RawFault): ResolvedFault | undefined {
    const data = this.find(rid, pasid);
    return data && { ioasid: data.ioasid, cookie: data.device.cookie, addr };
  }
}

function slot(device: IommuDev, pasid: number | undefined): number {
  return key(device.rid, pasid ?? device.defaultPasid);
}

function key(rid: number, pasid: number): number {
  if (!(Number.isInteger(pasid) && pasid >= 0 && pasid < PASID_LIMIT))
    throw new RangeError(`PASID ${pasid} is outside 0 to ${PASID_LIMIT - 1}`);
  if (!(Number.isInteger(rid) && rid >= 0 && rid < 2 ** 32))
    throw new RangeError(`device ${rid} is outside 0 to 2^32 - 1`);
  return rid * PASID_LIMIT + pasid;
}
