import type { AttachTarget } from './attach-target';
import { toPasid, type BoundDevice } from './bound-device';
import type { Context } from './context';
import { Device } from './device';
import { IommuError, refusal } from './errors';
import { hex, type Hex } from './hex';
import { Handle, runAll } from './handle';
import { propose } from './proposal';
import * as uapi from './uapi';

const DEVICES = 'virtual machines that devices belong to with their PASIDs';
const TRANSLATION = 'PASID translation by the processor (KVM_CAP_PASID_TRANSLATION)';

/** Answers of a descriptor that is no virtual machine's any more: closed, or another file; ENOENT: another machine's. */
const GONE: readonly string[] = ['EBADF', 'EOPNOTSUPP', 'ENOENT'];

/** A vPASID that the processor translates, and the address space that it means. */
export interface GuestPasid {
  readonly pasid: number;
  readonly ioasid: number;
}

/** What of a virtual machine's PASIDs goes to another machine with it: vPASIDs, and no number of the host's. */
export interface SavedPasids {
  readonly translated: boolean;
  /** The address spaces of its devices' vPASIDs; the device by its cookie. */
  readonly attached: readonly (GuestPasid & { readonly cookie: Hex })[];
  readonly mapped: readonly GuestPasid[];
}

/** Who stands for whom on the other machine. */
export interface RestoreOptions {
  /** The device for one that had this cookie: bound, and in the virtual machine. */
  readonly device: (cookie: bigint) => BoundDevice;
  /** The address space for one that had this IOASID. */
  readonly space: (ioasid: number) => AttachTarget;
}

/**
 * The devices and PASIDs of a virtual machine (RFC, sections 1.4 and 4.5). A guest's ENQCMD carries a vPASID, which the
 * processor translates; so a vPASID means the same for every device of the machine whose commands come that way.
 */
export class VirtualMachine extends Handle {
  /** The descriptor of the machine's file; it stays open when this is closed. */
  readonly fd: number;
  readonly #context: Context;
  readonly #devices = new Set<Device>();
  readonly #mapped = new Map<number, AttachTarget>();
  #translates = false;

  /** @internal Use `iommu.openVm()`. */
  constructor(context: Context, fd: number) {
    super();
    this.#context = context;
    this.fd = fd;
    context.machines.add(this);
  }

  /** @internal */
  override get label(): string {
    return `virtual machine ${this.fd}`;
  }

  /** The devices that belong to it. */
  get devices(): readonly Device[] {
    return [...this.#devices].filter(({ closed }) => !closed);
  }

  /** Whether its processors translate PASIDs. */
  get translatesPasids(): boolean {
    return this.#translates;
  }

  /** The vPASIDs that they translate. */
  get mapped(): readonly GuestPasid[] {
    // The kernel forgets a vPASID with its last attach.
    const lives = (pasid: number, space: AttachTarget) =>
      this.devices.some((device) => device.attached(pasid) === space);
    return [...this.#mapped]
      .filter(([pasid, space]) => lives(pasid, space))
      .map(([pasid, { ioasid }]) => ({ pasid, ioasid }));
  }

  /**
   * Takes a device in, before any vPASID of it is attached.
   *
   * Throws IommuError: EINVAL (its ENQCMDs need translation and those of another device do not, or the reverse: the
   * processor does it for all or for none), EEXIST, EBUSY (it has PASIDs attached, or is in another machine), EOPNOTSUPP.
   */
  addDevice(device: Device): void {
    const row = uapi.KVM_DEV_VFIO_FILE_ADD;
    this.requireOpen({ request: row.name });
    this.#checkDevice(device);
    const { pasid } = device.info();
    if (pasid?.cpu) {
      const other = this.#needing(!pasid.cpuVirt);
      if (other) throw mixed(device.name, pasid.cpuVirt, `those for ${other.name}`);
      if (this.#translates && !pasid.cpuVirt) throw mixed(device.name, false, 'all of this virtual machine');
    }
    this.#call(row, { fd: device.fd }, DEVICES);
    this.#devices.add(device);
  }

  /** Lets a device go. Throws IommuError: EBUSY (it has PASIDs attached), ENOENT. */
  removeDevice(device: Device): void {
    const row = uapi.KVM_DEV_VFIO_FILE_DEL;
    this.requireOpen({ request: row.name });
    this.#checkDevice(device);
    this.#call(row, { fd: device.fd }, DEVICES);
    this.#devices.delete(device);
  }

  /**
   * Makes the processors translate the PASID of each ENQCMD; those that are not mapped leave the guest. Until then the
   * portals of devices that need it are blocked. Throws IommuError: EINVAL (a device is there that must not have it).
   */
  enablePasidTranslation(): void {
    const row = uapi.KVM_ENABLE_CAP;
    this.requireOpen({ request: row.name });
    const other = this.#needing(false);
    if (other) throw mixed(other.name, false, 'all of this virtual machine');
    this.#call(row, { cap: uapi.KVM_CAP_PASID_TRANSLATION }, TRANSLATION);
    this.#translates = true;
  }

  /**
   * Lets the guest use a vPASID in ENQCMD: it means `space`, to which a device of the machine is attached with that vPASID
   * (KVM_MAP_PASID). Throws RangeError; IommuError: ENOENT (no such attach), EEXIST, EINVAL (translation is off).
   */
  mapPasid(pasid: number, space: AttachTarget): void {
    const row = uapi.KVM_MAP_PASID;
    this.requireOpen({ request: row.name });
    const user = toPasid(pasid);
    const device = this.devices.find((one) => one.info().pasid?.cpuVirt && one.attached(user) === space);
    if (!device)
      throw refusal(
        'ENOENT',
        `no device of ${this.label} that takes ENQCMD has vPASID ${user} attached to this space`,
        {
          request: row.name,
          hint: 'attach one first: device.attach(space, { pasid })',
        },
      );
    const values = { user_pasid: user, iommu_fd: this.#context.fd, ioasid: device.tableId(user) ?? 0 };
    this.#call(row, values, TRANSLATION);
    this.#mapped.set(user, space);
  }

  /** The guest's next ENQCMD with this vPASID leaves it. Throws IommuError ENOENT (it is not mapped). */
  unmapPasid(pasid: number): void {
    const row = uapi.KVM_UNMAP_PASID;
    this.requireOpen({ request: row.name });
    const user = toPasid(pasid);
    this.#call(row, { user_pasid: user }, TRANSLATION);
    this.#mapped.delete(user);
  }

  /** What another machine needs to go on with the same vPASIDs. Plain data, which JSON.stringify takes. */
  savePasids(): SavedPasids {
    this.requireOpen({ request: uapi.KVM_MAP_PASID.name });
    const attached = this.devices.flatMap(({ cookie, slots }) =>
      slots.flatMap(({ pasid, target }) =>
        pasid === undefined ? [] : [{ cookie: hex(cookie), pasid, ioasid: target.ioasid }],
      ),
    );
    return { translated: this.#translates, attached, mapped: this.mapped };
  }

  /**
   * Attaches and maps what was saved on another machine. Throws TypeError (a cookie names no device of this machine),
   * IommuError; what was attached and mapped is undone, but translation that is on stays on.
   */
  restorePasids(saved: SavedPasids, { device, space }: RestoreOptions): void {
    const undo: (() => void)[] = [];
    try {
      for (const { cookie, pasid, ioasid } of saved.attached) {
        const one = device(BigInt(cookie));
        if (!(one instanceof Device) || !this.#devices.has(one))
          throw new TypeError(`cookie ${cookie} names no device of ${this.label}`);
        const before = one.attached(pasid);
        one.attach(space(ioasid), { pasid });
        if (before === undefined) undo.push(() => one.detach({ pasid }));
      }
      if (saved.translated) this.enablePasidTranslation();
      for (const { pasid, ioasid } of saved.mapped) {
        this.mapPasid(pasid, space(ioasid));
        undo.push(() => this.unmapPasid(pasid));
      }
    } catch (error) {
      runAll(undo.reverse());
      throw error;
    }
  }

  #checkDevice(device: Device): void {
    if (!(device instanceof Device)) throw new TypeError('a virtual machine takes what iommu.bind() gave');
    if (!this.#context.devices.has(device))
      throw new TypeError(`${device.label} belongs to another Iommu, or is closed`);
  }

  /** RFC, section 1.4: the user sees from the flags that these cannot be in one machine. Undefined: none is. */
  #needing(translation: boolean): Device | undefined {
    return this.devices.find((device) => {
      const { pasid } = device.info();
      return pasid?.cpu && pasid.cpuVirt === translation;
    });
  }

  #call<S extends uapi.Struct>(
    row: uapi.Ioctl<S>,
    values: Parameters<S['encode']>[0],
    feature: string,
  ): void {
    propose(this.#context, this.fd, row, values, { feature });
  }

  /** The guest's ENQCMDs are over. Its devices belong to the machine until they, or its file, are closed. */
  protected override release(): void {
    const steps = [...this.#mapped.keys()].map((user_pasid) => () => {
      try {
        this.#call(uapi.KVM_UNMAP_PASID, { user_pasid }, TRANSLATION);
      } catch (error) {
        // The machine went first, and its translation with it.
        if (!(error instanceof IommuError && GONE.includes(error.code))) throw error;
      }
    });
    this.#context.machines.delete(this);
    runAll(steps);
  }
}

function mixed(name: string, translated: boolean, others: string): Error {
  const [mustBe, are] = translated ? ['be', 'are not'] : ['not be', 'are'];
  return refusal(
    'EINVAL',
    `the PASIDs of ENQCMDs for ${name} must ${mustBe} translated by the processor, and ${others} ${are}`,
    {
      hint: 'it translates all of a virtual machine, or none: put devices that differ in info().pasid.cpuVirt apart',
    },
  );
}
