import { NO_PASID, PASID_LIMIT, type IommuDev } from './attach-data';
import { AttachTarget, type AttachAttempt, type Attachment } from './attach-target';
import type { Context } from './context';
import { refusal, type IommuError } from './errors';
import { Handle, runAll } from './handle';
import { readHardwareInfo, type HardwareInfo, type HardwareType } from './hardware-info';
import { attempt, refused } from './ioctl';
import { checkOptions } from './options';
import type { PageTable } from './page-table';
import { errno, IOMMU_SLOT_OWNER, VFIO_DEVICE_ATTACH_PASID } from './uapi';
import type { VirtualDevice } from './virtual-iommu';

/** Options of `attach`. */
export interface AttachOptions {
  /** Attach this PASID of the device (1 to 2^20 - 1); without it, the device's requests that carry none. */
  pasid?: number | undefined;
  /** Switch from the space attached now, at once and without a gap, instead of refusing (EEXIST). */
  replace?: boolean | undefined;
  /**
   * Whether the device is really used for DMA that does not snoop (RFC, section 1.5): false where it could, and its driver
   * never does. Holds for all of the device's attachments, until it is said otherwise. EOPNOTSUPP on Linux.
   */
  noSnoop?: boolean | undefined;
}

const SLOT_TAKEN = 'give the devices different vPASIDs, or put them into different virtual machines';

/** What fills a routing slot [device] or [device, PASID]. */
interface Slot extends Attachment {
  readonly target: AttachTarget;
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
  /** @internal What fault handling knows of it. */
  readonly iommuDev: IommuDev;
  /** @internal */
  protected readonly context: Context;
  readonly #slots = new Map<number, Slot>();
  readonly #hardwareInfo = new Map<HardwareType | undefined, HardwareInfo>();
  #virtualDevice: VirtualDevice | undefined;
  #noSnoop: boolean | undefined;

  /** @internal */
  protected constructor(context: Context, cookie: bigint, id: number) {
    super();
    this.context = context;
    this.cookie = cookie;
    this.id = id;
    this.iommuDev = { rid: id, defaultPasid: NO_PASID, cookie };
    context.devices.add(this);
  }

  /** The device for people: its address or kind. */
  abstract get name(): string;

  /** @internal Its driver reaches memory through iommufd itself (an access object): there is no page table for it. */
  get softwareMediated(): boolean {
    return false;
  }

  /** Other devices of its IOMMU group that are bound here: the kernel moves all that are attached when one is. */
  protected get groupMates(): readonly BoundDevice[] {
    return [];
  }

  /** The name of the ioctl that attaches, and of the one that detaches. */
  protected abstract readonly attachRequest: string;
  protected abstract readonly detachRequest: string;
  /** Attaches or replaces; the ID of the HWPT now in use, or a negative errno. */
  protected abstract attachTo(ptId: number, pasid: number | undefined, replace: boolean): number;
  /** 0 or a negative errno. */
  protected abstract detachFrom(pasid: number | undefined): number;

  /** What is known of why attaching gave `result`, a negative errno. */
  protected whyRefused(
    _result: number,
    _pasid: number | undefined,
    _target: AttachTarget,
  ): string | undefined {
    return undefined;
  }

  /** @internal */ override get label(): string {
    return this.name;
  }

  /**
   * What the IOMMU in front of the device can do (IOMMU_GET_HW_INFO). `type` asks for one of several kinds that an IOMMU
   * has ('tegra241-cmdqv' beside 'arm-smmuv3'). Throws TypeError, IommuError.
   */
  hardwareInfo(type?: HardwareType): HardwareInfo {
    this.requireOpen({ request: 'IOMMU_GET_HW_INFO' });
    const known = this.#hardwareInfo.get(type);
    if (known) return known;
    if (this.softwareMediated)
      throw refusal('EOPNOTSUPP', `no IOMMU takes part in the DMA of ${this.name}: its driver does it`, {
        request: 'IOMMU_GET_HW_INFO',
        hint: 'attach it to an address space, without PASIDs and page faults',
      });
    const info = readHardwareInfo(this.context, this.id, type);
    this.#hardwareInfo.set(type, info);
    return info;
  }

  /** What stands for the device in a virtual IOMMU, if anything does. */
  get virtualDevice(): VirtualDevice | undefined {
    return this.#virtualDevice;
  }

  /** @internal */
  setVirtualDevice(device: VirtualDevice | undefined): void {
    this.#virtualDevice = device;
  }

  /** The space or page table attached for requests with this PASID (without one: undefined), if any. */
  attached(pasid?: number): AttachTarget | undefined {
    return this.#slots.get(checkPasid(pasid))?.target;
  }

  /** What is attached: for the device's requests without PASID (undefined) and for its PASIDs. */
  get slots(): readonly { readonly pasid: number | undefined; readonly target: AttachTarget }[] {
    return [...this.#slots.values()].map(({ pasid, target }) => ({ pasid, target }));
  }

  /** @internal The HWPT that translates this slot now. */
  tableId(pasid: number | undefined): number | undefined {
    return this.#slots.get(checkPasid(pasid))?.hwptId;
  }

  /**
   * Lets the device's DMA go through an address space or a page table. Does nothing if that is attached there already.
   * With `replace`, the attached devices of its IOMMU group move with it.
   *
   * Throws IommuError and changes nothing: EEXIST (something else is attached and `replace` is not set), EOPNOTSUPP
   * (no PASID support), ENODEV (faults are to be reported and the device has no PRI), EINVAL, EADDRINUSE
   * (mappings do not fit this IOMMU), ENOMEM, EFAULT, ENOENT (no virtual device where the table needs one).
   */
  attach(target: AttachTarget, options: AttachOptions = {}): void {
    this.requireOpen({ request: this.attachRequest });
    if (!(target instanceof AttachTarget))
      throw new TypeError('attach takes what iommu.createAddressSpace() or createPageTable() made');
    target.requireOpen({ request: this.attachRequest });
    if (target.context !== this.context) throw new TypeError(`${target.label} belongs to another Iommu`);
    checkOptions(options, 'attach');
    const { pasid, replace = false } = options;
    const key = checkPasid(pasid);
    const old = this.#slots.get(key);
    if (options.noSnoop !== undefined && typeof options.noSnoop !== 'boolean')
      throw new TypeError(`noSnoop is true or false, not ${String(options.noSnoop)}`);
    if (old?.target === target) return this.#hint(options.noSnoop);
    if (old && !replace) throw this.#taken(old, target);
    const { attachData } = this.context;
    attachData.check(this.iommuDev, pasid);
    if (pasid === undefined) this.#checkBesidePasids(target);
    else this.#checkPasidAttach(target, pasid);

    this.#withQueuesPaused(() => this.#attach(target, options, old));
  }

  #attach(target: AttachTarget, { pasid, noSnoop }: AttachOptions, old: Slot | undefined): void {
    const key = checkPasid(pasid);
    const hinted = this.#noSnoop;
    this.#hint(noSnoop);
    let hwptId = 0;
    const table = this.#connect(
      target,
      {
        device: this,
        attach: (ptId) => {
          hwptId = this.attachTo(ptId, pasid, old !== undefined);
          return hwptId;
        },
        failure: (result, hint) =>
          this.#refused(this.attachRequest, pasid, result, hint ?? this.whyRefused(result, pasid, target)),
      },
      hinted,
    );
    const slot: Slot = { device: this, pasid, target, table, hwptId };
    this.#fill(slot);
    if (old)
      for (const mate of this.groupMates) if (mate.#slots.has(key)) mate.#fill({ ...slot, device: mate });
  }

  /** In the kernel the slot has this now, whatever it had before. */
  #fill(slot: Slot): void {
    const { pasid, target, table } = slot;
    const key = checkPasid(pasid);
    const old = this.#slots.get(key);
    this.#slots.set(key, slot);
    table?.users.add(slot);
    target.addAttachment(slot);
    const { attachData } = this.context;
    attachData.remove(this.iommuDev, pasid);
    attachData.add(this.iommuDev, pasid, target.ioasid);
    if (old) this.#release(old);
  }

  /** Attaches. If that fails, what was said of no-snoop before holds again. */
  #connect(target: AttachTarget, attempt: AttachAttempt, hinted: boolean | undefined): PageTable | undefined {
    try {
      return target.connect(attempt);
    } catch (error) {
      if (this.#noSnoop !== hinted) {
        this.hintNoSnoop(hinted);
        this.#noSnoop = hinted;
      }
      throw error;
    }
  }

  /** Whether the device is used for DMA that does not snoop, as attach() was told; undefined: as the kernel knows it. */
  get noSnoop(): boolean | undefined {
    return this.#noSnoop;
  }

  #hint(noSnoop: boolean | undefined): void {
    if (noSnoop === undefined || noSnoop === this.#noSnoop) return;
    this.hintNoSnoop(noSnoop);
    this.#noSnoop = noSnoop;
  }

  /** Tells the kernel; undefined takes it back. Throws IommuError. */
  protected abstract hintNoSnoop(used: boolean | undefined): void;

  /** The error for an attach or detach; the flag is VFIO's, which mock devices do not have. */
  #refused(request: string, pasid: number | undefined, result: number, hint?: string): IommuError {
    const flags = pasid === undefined ? 0 : VFIO_DEVICE_ATTACH_PASID;
    const owner = result === -errno.EEXIST ? slotOwner(this.context, this.id, pasid) : undefined;
    if (owner)
      return refusal(
        'EEXIST',
        `${describe(this)} would fill the routing slot [RID, PASID] of ${describe(owner)}, and their faults could not be told apart`,
        {
          request,
          hint: SLOT_TAKEN,
        },
      );
    // Whose it is stays untold where that is another user's.
    const why = result === -errno.EEXIST ? `another user's device has the routing slot: ${SLOT_TAKEN}` : hint;
    return refused(this.context.kernel, { name: request }, { flags }, result, { hint: why });
  }

  /** The slot does not use its target any more. */
  #release(slot: Slot): void {
    slot.table?.users.delete(slot);
    slot.target.removeAttachment(slot, slot.table);
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
    this.#withQueuesPaused(() => {
      const result = this.detachFrom(pasid);
      if (result < 0) throw this.#refused(this.detachRequest, pasid, result);
      this.#forget(slot);
    });
  }

  /** The slot is empty in the kernel. Does nothing for one that was forgotten. */
  #forget(slot: Slot): void {
    const key = checkPasid(slot.pasid);
    if (this.#slots.get(key) !== slot) return;
    this.#slots.delete(key);
    this.context.attachData.remove(this.iommuDev, slot.pasid);
    this.#release(slot);
  }

  /** Makes and notes a change of what is attached while every fault queue rests: a fault is of before or of after. */
  #withQueuesPaused(change: () => void): void {
    const queues = [...this.context.queues];
    for (const queue of queues) queue.pause();
    try {
      change();
    } finally {
      for (const queue of queues) queue.resume();
    }
  }

  #where(hint: string) {
    return { request: this.attachRequest, hint };
  }

  #taken(old: Slot, target: AttachTarget): Error {
    const slot = old.pasid === undefined ? '' : ` with PASID ${old.pasid}`;
    return refusal(
      'EEXIST',
      `device 0x${this.cookie.toString(16)} (${this.name})${slot} is attached to ${old.target.label}, ` +
        `so it cannot be attached to ${target.label} as well`,
      this.#where('detach it first, or pass { replace: true }'),
    );
  }

  /** The kernel's EINVAL for these says nothing, and for a device without PASIDs it even succeeds. */
  #checkPasidAttach(target: AttachTarget, pasid: number): void {
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
    if (!target.pasid)
      throw refusal(
        'EINVAL',
        `${target.label} cannot be used with PASIDs`,
        this.#where('make it with pasid: true'),
      );
    const own = this.#slots.get(NO_PASID)?.target;
    if (own && !own.pasid)
      throw refusal(
        'EINVAL',
        `${this.name} itself is attached to ${own.label}, which excludes PASIDs`,
        this.#where('make that one with pasid: true too'),
      );
  }

  #checkBesidePasids(target: AttachTarget): void {
    if (target.pasid) return;
    for (const slot of this.#slots.values())
      if (slot.pasid !== undefined)
        throw refusal(
          'EINVAL',
          `PASID ${slot.pasid} of ${this.name} is attached, and ${target.label} excludes PASIDs`,
          this.#where('make it with pasid: true'),
        );
  }

  /** Detaches everything, then unbinds. What stands for it in a virtual IOMMU goes first: left over, it could never go. */
  protected override release(): void {
    const slots = [...this.#slots.values()];
    const detach = slots.map((slot) => () => this.#detach(slot.pasid));
    // What could not be detached went with the device.
    const forget = slots.map((slot) => () => this.#forget(slot));
    runAll([
      ...detach,
      () => this.#virtualDevice?.close(),
      () => this.unbind(),
      ...forget,
      () => this.context.devices.delete(this),
    ]);
  }

  /** Gives the device back, once nothing is attached. */
  protected abstract unbind(): void;
}

function describe({ cookie, name }: BoundDevice): string {
  return `device 0x${cookie.toString(16)} (${name})`;
}

/** The device that fills the slot that a PASID of `id` leads to, as far as the kernel tells. */
function slotOwner(context: Context, id: number, pasid: number | undefined): BoundDevice | undefined {
  const { result, out } = attempt(context.kernel, context.fd, IOMMU_SLOT_OWNER, {
    dev_id: id,
    pasid: pasid ?? NO_PASID,
  });
  if (result < 0 || out.out_dev_id === id) return undefined;
  return [...context.devices].find((device) => device.id === out.out_dev_id);
}

/** Checks a vPASID. Throws TypeError, RangeError. */
export function toPasid(pasid: number): number {
  if (pasid === undefined) throw new TypeError('pasid must be a number');
  return checkPasid(pasid);
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
