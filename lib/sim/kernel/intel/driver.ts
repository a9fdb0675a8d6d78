/**
 * The kernel's driver of a VT-d unit (drivers/iommu/intel's role): writes real table entries into memory,
 * submits real invalidations, reads the hardware's queues.
 */
import { errno } from '../../../uapi/errno';
import {
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
  iommu_hw_info_vtd,
  iommu_hwpt_vtd_s1,
} from '../../../uapi/iommufd';
import * as pci from '../../devices/pci-registers';
import type { PhysicalMemory } from '../../memory';
import { contextEntryAddress } from '../../vtd/context-table';
import * as inv from '../../vtd/invalidation-descriptors';
import * as regs from '../../vtd/registers';
import { encodeRootEntryHalf, ROOT_ENTRY_HALF, rootEntryAddress } from '../../vtd/root-table';
import type { VtdUnit } from '../../vtd/unit';
import type { InterruptController, MessageSource } from '../interrupts';
import {
  IOMMU_NO_PASID,
  type AttachHandle,
  type HardwareInfo,
  type IommuDriver,
  type IommuGroup,
  type KernelDevice,
  type KernelPciDevice,
  type PagingDomain,
  type UserData,
} from '../iommu/core';
import { reportPageFault } from '../iommu/page-fault';
import { DeviceState } from './device-state';
import { VtdIdentityDomain, VtdNestedDomain, VtdPagingDomain } from './domain';
import { FaultLog } from './fault-log';
import { InterruptRemapping } from './interrupt-remapping';
import { InvalidationQueue } from './invalidation-queue';
import { PageRequestReader } from './page-requests';
import { FIRST_STAGE, PageTable, SECOND_STAGE } from './page-table';
import { IntelAttachments } from './attachments';

/** The interrupt window (0xFEEx_xxxx), which the hardware never translates. */
const INTERRUPT_WINDOW = { start: 0xfee00000n, last: 0xfeefffffn };

export class IntelIommu implements IommuDriver {
  readonly faults: FaultLog;
  readonly #queue: InvalidationQueue;
  readonly #attachments: IntelAttachments;
  readonly #devices = new Map<KernelDevice, DeviceState>();
  readonly #root: number;
  readonly #interrupts: InterruptRemapping | undefined;
  /** What devices have in pass-through mode while nobody owns their group. */
  readonly #identity: VtdIdentityDomain;

  /** Starts the unit: tables, queues, interrupts, then translation. Devices are added afterwards. */
  constructor(
    readonly memory: PhysicalMemory,
    readonly unit: VtdUnit,
    interrupts: InterruptController,
    /** Devices that nobody has taken reach all of memory. */
    readonly passthrough = false,
  ) {
    if (passthrough && !unit.capabilities.PT)
      throw new RangeError('the IOMMU has no pass-through (ECAP_REG.PT)');
    this.#root = memory.allocatePage();
    this.faults = new FaultLog(unit);
    this.#queue = new InvalidationQueue(memory, unit);
    this.#attachments = new IntelAttachments(unit, this.#queue);
    this.#identity = new VtdIdentityDomain(this.#queue);
    const reader = new PageRequestReader(memory, unit, (rid, fault) => {
      const device = this.#deviceOf(rid);
      if (device) reportPageFault(this, device, fault);
    });
    const connect = (control: number, handler: () => void) => {
      const vector = interrupts.allocate(handler);
      if (!vector) throw new RangeError('no interrupt vector left for the IOMMU');
      unit.write32(control + 4, vector.data);
      unit.write32(control + 8, vector.addressLow);
      unit.write32(control + 12, vector.addressHigh);
      unit.write32(control, 0);
    };
    connect(regs.FECTL_REG, () => this.faults.handleEvent());
    connect(regs.PECTL_REG, () => reader.handleEvent());

    // What is on stays on only if every command says so again; what sets a pointer does so once.
    let on = 0;
    const command = (bits: number) => {
      unit.write32(regs.GCMD_REG, on | bits);
      on |= bits & ~(regs.GCMD_SRTP | regs.GCMD_SIRTP);
    };
    command(regs.GCMD_QIE);
    if (unit.capabilities.IR)
      this.#interrupts = new InterruptRemapping(memory, unit, this.#queue, interrupts, command);
    const mode = regs.TTM_SCALABLE << regs.RTADDR_TTM_SHIFT;
    unit.write64(regs.RTADDR_REG, Math.floor(this.#root / 2 ** 32), (this.#root % 2 ** 32) | mode);
    command(regs.GCMD_SRTP);
    this.#forgetTables();
    command(regs.GCMD_TE);
  }

  /** Whether devices can send only interrupts that are theirs. */
  get remapsInterrupts(): boolean {
    return this.#interrupts !== undefined;
  }

  messagesOf(device: KernelPciDevice): MessageSource | undefined {
    return this.#interrupts?.messagesOf(device);
  }

  /**
   * A device was found: it gets a PASID table, with what its group is attached to: nothing, in a group that is owned and
   * attached to nothing, so that all its DMA is blocked. Its context entries point to that, one for each requester ID that
   * its requests may have. -errno, and then the table stays empty: the group's table is not for this device.
   */
  probe(device: KernelPciDevice): number {
    const { DT, PRS, PASID } = this.unit.capabilities;
    const state = new DeviceState(this.memory, device, { ats: DT === 1, pri: PRS === 1, pasid: PASID === 1 });
    this.#devices.set(device, state);
    // PASIDs are not attached for a device that comes later: as in Linux, they have to be attached again.
    const { owner, handles } = device.group;
    const result = owner
      ? this.#attachments.set(state, 0, handles.get(IOMMU_NO_PASID))
      : this.#attachments.replace(state, 0, this.#defaultDomain);
    for (const rid of state.requesterIds) {
      // An alias may be another's own ID, or alias: all of them are in one group, and their tables say the same.
      if (rid !== device.rid && this.#pointsTo(rid)) continue;
      this.memory.writeWords(contextEntryAddress(this.#contextTable(rid), rid), state.contextEntry());
    }
    this.#forgetTables();
    return result;
  }

  hardwareInfo(device: KernelPciDevice): HardwareInfo {
    const state = this.#state(device);
    const wide = (offset: number) =>
      (BigInt(this.unit.read32(offset + 4)) << 32n) | BigInt(this.unit.read32(offset));
    const pasid = device.pci.config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
    const control = state.pasidBits ? device.pci.config.read(pasid + pci.PASID_CONTROL, 2) : 0;
    return {
      type: IOMMU_HW_INFO_TYPE_INTEL_VTD,
      data: iommu_hw_info_vtd.encode({
        flags: IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
        cap_reg: wide(regs.CAP_REG_OFFSET),
        ecap_reg: wide(regs.ECAP_REG_OFFSET),
      }),
      capabilities:
        (state.atsEnabled ? 0 : IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED) |
        (control & pci.PASID_EXECUTE ? IOMMU_HW_CAP_PCI_PASID_EXEC : 0) |
        (control & pci.PASID_PRIVILEGED ? IOMMU_HW_CAP_PCI_PASID_PRIV : 0),
      maxPasidLog2: state.pasidBits,
    };
  }

  enforcesCoherency(): boolean {
    return this.unit.capabilities.SC === 1;
  }

  reservedRegions(): readonly { start: bigint; last: bigint }[] {
    return [INTERRUPT_WINDOW];
  }

  allocatePaging(_device: KernelDevice, flags: number, data?: UserData): PagingDomain | number {
    if (data) return -errno.EOPNOTSUPP;
    // Linux prefers the first stage; a nesting parent must be a second stage.
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    const { NEST, FSTS, SSTS, FS1GP, SSLPS, FS5LP, SAGAW, MGAW } = this.unit.capabilities;
    if (flags & ~(IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID)) return -errno.EOPNOTSUPP;
    if (nestParent && !NEST) return -errno.EOPNOTSUPP;
    const second = nestParent || !FSTS;
    if (second && !SSTS) return -errno.EOPNOTSUPP;
    const levels = second ? secondStageLevels(MGAW + 1, SAGAW) : MGAW + 1 > 48 && FS5LP ? 5 : 4;
    if (!levels) return -errno.EOPNOTSUPP;
    const largestLeaf = second ? (SSLPS & 2 ? 3 : SSLPS & 1 ? 2 : 1) : FS1GP ? 3 : 2;
    const did = this.#attachments.allocateDid();
    if (did < 0) return did;
    const table = PageTable.create(this.memory, second ? SECOND_STAGE : FIRST_STAGE, levels, largestLeaf);
    if (typeof table === 'number') {
      this.#attachments.freeDid(did);
      return table;
    }
    // Of a first stage's canonical addresses only the lower half is used (section 3.6).
    const bits = Math.min(MGAW + 1, 12 + 9 * levels) - (second ? 0 : 1);
    const free = (freed: number) => this.#attachments.freeDid(freed);
    const last = (1n << BigInt(bits)) - 1n;
    return new VtdPagingDomain(did, this.#queue, free, table, last, nestParent, this.unit.capabilities);
  }

  allocateNested(
    _device: KernelDevice,
    parent: PagingDomain,
    flags: number,
    data: UserData,
  ): VtdNestedDomain | number {
    if (!this.unit.capabilities.NEST || flags & ~IOMMU_HWPT_ALLOC_PASID) return -errno.EOPNOTSUPP;
    if (data.type !== IOMMU_HWPT_DATA_VTD_S1) return -errno.EOPNOTSUPP;
    if (!(parent instanceof VtdPagingDomain) || !parent.nestParent) return -errno.EINVAL;
    if (data.length !== iommu_hwpt_vtd_s1.size) return -errno.EINVAL;
    const bytes = data.read();
    if (!bytes) return -errno.EFAULT;
    const did = this.#attachments.allocateDid();
    if (did < 0) return did;
    const free = (freed: number) => this.#attachments.freeDid(freed);
    return new VtdNestedDomain(did, this.#queue, free, parent, iommu_hwpt_vtd_s1.decode(bytes));
  }

  attachGroup(group: IommuGroup, handle: AttachHandle | undefined): number {
    return this.#attach(
      group.devices.map((device) => this.#state(device)),
      0,
      handle,
    );
  }

  attachGroupPasid(group: IommuGroup, pasid: number, handle: AttachHandle | undefined): number {
    // As in Linux: nothing is done, and nothing is said, for a device without PASIDs.
    const states = group.devices.map((device) => this.#state(device)).filter((state) => state.pasidBits > 0);
    if (states.some((state) => pasid >= 2 ** state.pasidBits)) return -errno.EINVAL;
    return this.#attach(states, pasid, handle);
  }

  remove(device: KernelPciDevice): void {
    const state = this.#state(device);
    this.#devices.delete(device);
    for (const rid of state.requesterIds) {
      // A device that was plugged into its place meanwhile has the entry, or one that shares the alias.
      const heir = [...this.#devices.values()].findLast(({ requesterIds }) => requesterIds.has(rid));
      const entry = heir?.contextEntry() ?? new Int32Array(state.contextEntry().length);
      this.memory.writeWords(contextEntryAddress(this.#contextTable(rid), rid), entry);
    }
    this.#forgetTables();
    state.free();
  }

  releaseGroup(group: IommuGroup): void {
    // Without pass-through the kernel's DMA API starts from an empty table: blocked until a kernel driver maps something.
    for (const device of group.devices)
      this.#attachments.replace(this.#state(device), 0, this.#defaultDomain);
  }

  get #defaultDomain(): VtdIdentityDomain | undefined {
    return this.passthrough ? this.#identity : undefined;
  }

  pageResponse(device: KernelPciDevice, pasid: number, grpid: number, code: number): void {
    this.#queue.submit(
      inv.encodePageGroupResponse({
        PP: pasid >= 0 ? 1 : 0,
        PASID: Math.max(pasid, 0),
        RID: device.rid,
        PRGI: grpid,
        RESPONSE_CODE: code === IOMMUFD_PAGE_RESP_INVALID ? 1 : 0,
      }),
    );
  }

  /** Moves one slot of several devices: of all, or, where one refuses, of none. */
  #attach(states: readonly DeviceState[], pasid: number, handle: AttachHandle | undefined): number {
    const before = states.map((state) => state.slots.get(pasid)?.domain);
    for (const [i, state] of states.entries()) {
      const result = this.#attachments.set(state, pasid, handle);
      if (!result) continue;
      for (let undo = 0; undo < i; undo++) this.#attachments.replace(states[undo], pasid, before[undo]);
      return result;
    }
    return 0;
  }

  #state(device: KernelDevice): DeviceState {
    const state = this.#devices.get(device);
    if (!state) throw new Error('the device is not behind this IOMMU');
    return state;
  }

  /** Drops whatever the hardware has cached of the tables above the pages'. */
  #forgetTables(): void {
    this.#queue.submit(
      inv.encodeContextCacheInvalidate({ G: inv.G_GLOBAL }),
      inv.encodePasidCacheInvalidate({ G: inv.PASID_CACHE_G_GLOBAL }),
      inv.encodeIotlbInvalidate({ G: inv.G_GLOBAL }),
    );
  }

  /** A context entry is present. */
  #pointsTo(rid: number): boolean {
    const words = new Int32Array(1);
    this.memory.readWords(contextEntryAddress(this.#contextTable(rid), rid), words);
    return (words[0] & 1) !== 0;
  }

  /** The device at a requester ID: the one plugged in last, if another that was pulled out is still open. */
  #deviceOf(rid: number): KernelPciDevice | undefined {
    return [...this.#devices.values()].findLast((state) => state.rid === rid)?.device;
  }

  /** The context table of the half bus that `rid` is on, made with its root entry if need be. */
  #contextTable(rid: number): number {
    const entry = rootEntryAddress(this.#root, rid);
    const words = new Int32Array(2);
    this.memory.readWords(entry, words);
    const { P, CTP } = ROOT_ENTRY_HALF.decode(words);
    if (P) return CTP;
    const table = this.memory.allocatePage();
    this.memory.writeWords(entry, encodeRootEntryHalf(table));
    return table;
  }
}

/** The smallest table of a width in SAGAW (bit n is n + 2 levels) that has all the address bits, or the largest; 0: none. */
function secondStageLevels(bits: number, SAGAW: number): number {
  const supported = [3, 4, 5].filter((levels) => SAGAW & (1 << (levels - 2)));
  return supported.find((levels) => 12 + 9 * levels >= bits) ?? supported.at(-1) ?? 0;
}
