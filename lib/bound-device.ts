import { NO_PASID, PASID_LIMIT } from './attach-data';
import type { Context } from './context';
import { check, refusal } from './errors';
import { Handle, runAll } from './handle';
import { readHardwareInfo, type HardwareInfo } from './hardware-info';
import { IoAddressSpace, type Attachment } from './io-address-space';
import type { PageTable } from './page-table';

/** Options of `attach`. */
export interface AttachOptions {
  /** Attach this PASID of the device (1 to 2^20 - 1); without it, the device's requests that carry none. */
  pasid?: number | undefined;
  /** Switch from the space attached now, at once and without a gap, instead of refusing (EEXIST). */
  replace?: boolean | undefined;
}

/** What fills a routing slot [device] or [device, PASID]. */
interface Slot extends Attachment {
  readonly space: IoAddressSpace;
  readonly table: PageTable | undefined;
  /** The HWPT in use, as the kernel returned it. */
  readonly hwptId: number;
}

/** A device bound to an Iommu: known by a cookie, and able to use address spaces. */
export abstract class BoundDevice extends Handle {
  /** The name the user gave it: 64 bits, unique in the Iommu, carried by fault reports. */
  readonly cookie: bigint;
  /** The kernel's object ID (`dev_id`), for raw calls. */
  readonly id: number;
  /** @internal */
  protected readonly context: Context;
  readonly #slots = new Map<number, Slot>();
  #hardwareInfo: HardwareInfo | undefined;

  /** @internal */
  protected constructor(context: Context, cookie: bigint, id: number) {
    super();
    this.context = context;
    this.cookie = cookie;
    this.id = id;
    context.devices.add(this);
  }

  /** The device for people: its address or kind. */
  abstract get name(): string;

  /** The name of the ioctl that attaches, and of the one that detaches. */
  protected abstract readonly attachRequest: string;
  protected abstract readonly detachRequest: string;
  /** Attaches or replaces; the ID of the HWPT now in use, or a negative errno. */
  protected abstract attachTo(ptId: number, pasid: number | undefined, replace: boolean): number;
  /** 0 or a negative errno. */
  protected abstract detachFrom(pasid: number | undefined): number;

  protected override get label(): string {
    return this.name;
  }

  /** What the IOMMU in front of the device can do (IOMMU_GET_HW_INFO). Throws IommuError. */
  hardwareInfo(): HardwareInfo {
    this.requireOpen({ request: 'IOMMU_GET_HW_INFO' });
    this.#hardwareInfo ??= readHardwareInfo(this.context, this.id);
    return this.#hardwareInfo;
  }

  /** The space attached for requests with this PASID (without one: undefined), if any. */
  attached(pasid?: number): IoAddressSpace | undefined {
    return this.#slots.get(checkPasid(pasid))?.space;
  }

  /** @internal The HWPT that translates this slot now. */
  protected hwptId(pasid: number | undefined): number | undefined {
    return this.#slots.get(checkPasid(pasid))?.hwptId;
  }

  /**
   * Lets the device's DMA go through `space`. Does nothing if that space is attached there already.
   *
   * Throws IommuError and changes nothing: EEXIST (another space is attached and `replace` is not set), EOPNOTSUPP
   * (no PASID support), ENODEV (the space reports faults and the device has no PRI), EINVAL, EADDRINUSE
   * (mappings do not fit this IOMMU), ENOMEM, EFAULT.
   */
  attach(space: IoAddressSpace, options: AttachOptions = {}): void {
    this.requireOpen({ request: this.attachRequest });
    if (!(space instanceof IoAddressSpace))
      throw new TypeError('attach takes an address space from iommu.createAddressSpace()');
    space.requireOpen({ request: this.attachRequest });
    if (space.context !== this.context) throw new TypeError('the address space belongs to another Iommu');
    const { pasid, replace = false } = options;
    const key = checkPasid(pasid);
    const old = this.#slots.get(key);
    if (old?.space === space) return;
    if (old && !replace) throw this.#taken(old, space);
    if (pasid === undefined) this.#checkBesidePasids(space);
    else this.#checkPasidAttach(space, pasid);

    let hwptId = 0;
    const table = space.connect(this, this.attachRequest, (ptId) => {
      hwptId = this.attachTo(ptId, pasid, old !== undefined);
      return hwptId;
    });
    const slot: Slot = { device: this, pasid, space, table, hwptId };
    this.#slots.set(key, slot);
    space.addAttachment(slot);
    if (old) this.context.attachData.remove(this.id, key);
    this.context.attachData.add(this.id, key, { cookie: this.cookie, ioasid: space.ioasid });
    if (old) old.space.removeAttachment(old, old.table);
  }

  /**
   * Stops the device's DMA through what is attached; from then on it is blocked. Page faults still waiting for
   * an answer get 'invalid' from the kernel. Does nothing if nothing is attached.
   */
  detach(options: { pasid?: number | undefined } = {}): void {
    this.requireOpen({ request: this.detachRequest });
    this.#detach(options.pasid);
  }

  #detach(pasid: number | undefined): void {
    const key = checkPasid(pasid);
    const slot = this.#slots.get(key);
    if (!slot) return;
    check(this.detachFrom(pasid), { syscall: 'ioctl', request: this.detachRequest });
    this.#forget(slot);
  }

  /** The slot is empty in the kernel. Does nothing for one that was forgotten. */
  #forget(slot: Slot): void {
    const key = checkPasid(slot.pasid);
    if (this.#slots.get(key) !== slot) return;
    this.#slots.delete(key);
    this.context.attachData.remove(this.id, key);
    slot.space.removeAttachment(slot, slot.table);
  }

  #where(hint: string) {
    return { request: this.attachRequest, hint };
  }

  #taken(old: Slot, space: IoAddressSpace): Error {
    const slot = old.pasid === undefined ? '' : ` with PASID ${old.pasid}`;
    return refusal(
      'EEXIST',
      `device 0x${this.cookie.toString(16)} (${this.name})${slot} is attached to address space ${old.space.ioasid}, ` +
        `so it cannot be attached to address space ${space.ioasid} as well`,
      this.#where('detach it first, or pass { replace: true }'),
    );
  }

  /** The kernel's EINVAL for these says nothing, and for a device without PASIDs it even succeeds. */
  #checkPasidAttach(space: IoAddressSpace, pasid: number): void {
    const bits = this.hardwareInfo().maxPasidLog2;
    if (bits === 0)
      throw refusal(
        'EOPNOTSUPP',
        `${this.name} has no PASIDs`,
        this.#where('the kernel would accept this attach and ignore it; attach without pasid'),
      );
    if (pasid >= 2 ** bits)
      throw refusal(
        'EINVAL',
        `PASID ${pasid} is too large`,
        this.#where(`${this.name} has ${bits}-bit PASIDs`),
      );
    if (!space.pasid)
      throw refusal(
        'EINVAL',
        `address space ${space.ioasid} cannot be used with PASIDs`,
        this.#where('make it with pasid: true'),
      );
    const own = this.#slots.get(NO_PASID)?.space;
    if (own && !own.pasid)
      throw refusal(
        'EINVAL',
        `${this.name} itself is attached to address space ${own.ioasid}, which excludes PASIDs`,
        this.#where('make that space with pasid: true too'),
      );
  }

  #checkBesidePasids(space: IoAddressSpace): void {
    if (space.pasid) return;
    for (const slot of this.#slots.values())
      if (slot.pasid !== undefined)
        throw refusal(
          'EINVAL',
          `PASID ${slot.pasid} of ${this.name} is attached, and address space ${space.ioasid} excludes PASIDs`,
          this.#where('make the space with pasid: true'),
        );
  }

  /** Detaches everything, then unbinds. */
  protected override release(): void {
    const slots = [...this.#slots.values()];
    const detach = slots.map((slot) => () => this.#detach(slot.pasid));
    // What could not be detached went with the device.
    const forget = slots.map((slot) => () => this.#forget(slot));
    runAll([...detach, () => this.unbind(), ...forget, () => this.context.devices.delete(this)]);
  }

  /** Gives the device back, once nothing is attached. */
  protected abstract unbind(): void;
}

/** The key of a slot. Throws TypeError, RangeError. */
function checkPasid(pasid: number | undefined): number {
  if (pasid === undefined) return NO_PASID;
  if (typeof pasid !== 'number') throw new TypeError(`pasid must be a number, not ${typeof pasid}`);
  if (!Number.isInteger(pasid) || pasid < 1 || pasid >= PASID_LIMIT)
    throw new RangeError(
      `PASID ${pasid} is outside 1 to ${PASID_LIMIT - 1}; leave it out for requests without one`,
    );
  return pasid;
}
