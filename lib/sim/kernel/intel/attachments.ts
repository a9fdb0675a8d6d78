/** Domains in PASID table entries: what attach, replace and detach write and invalidate. */
import { errno } from '../../../uapi/errno';
import { IOMMU_VTD_S1_EAFE, IOMMU_VTD_S1_SRE, IOMMU_VTD_S1_WPE } from '../../../uapi/iommufd';
import * as inv from '../../vtd/invalidation-descriptors';
import * as pt from '../../vtd/pasid-table';
import type { VtdUnit } from '../../vtd/unit';
import type { AttachHandle } from '../iommu/core';
import type { DeviceState } from './device-state';
import {
  ALL_PAGES,
  VtdIdentityDomain,
  VtdNestedDomain,
  VtdPagingDomain,
  type AttachableDomain,
  type Attachment,
} from './domain';
import type { InvalidationQueue } from './invalidation-queue';

/** Domain ids 0 and 1 are kept free, as Linux does: 1 is that of pass-through. */
const FIRST_DID = 2;

export class IntelAttachments {
  readonly #dids = new Set<number>();

  constructor(
    readonly unit: VtdUnit,
    readonly queue: InvalidationQueue,
  ) {}

  /** The lowest free domain id, or -ENOSPC. CAP_REG.ND says how many there are: 2^(2 × ND + 4). */
  allocateDid(): number {
    const most = 2 ** (2 * this.unit.capabilities.ND + 4);
    let did = FIRST_DID;
    while (this.#dids.has(did)) did++;
    if (did >= most) return -errno.ENOSPC;
    this.#dids.add(did);
    return did;
  }

  freeDid(did: number): void {
    this.#dids.delete(did);
  }

  /** Puts the handle's domain into a slot, or blocks the slot. 0 or -errno, and then nothing has changed. */
  set(state: DeviceState, pasid: number, handle: AttachHandle | undefined): number {
    const domain = handle?.domain as AttachableDomain | undefined;
    if (domain && !(domain instanceof VtdPagingDomain) && !(domain instanceof VtdNestedDomain))
      return -errno.EINVAL;
    // Faults need a device that can report them.
    if (handle?.deliver && !state.priEnabled) return -errno.ENODEV;
    if (domain instanceof VtdNestedDomain) {
      const result = this.#checkNested(domain);
      if (result) return result;
    }
    return this.replace(state, pasid, domain);
  }

  /** The same without checks. */
  replace(state: DeviceState, pasid: number, domain: AttachableDomain | undefined): number {
    const old = state.slots.get(pasid);
    if (!domain && !old) return 0;
    const entry = domain ? this.#entry(domain) : pt.encodePasidEntry({});
    if (!state.writeEntry(pasid, entry)) return -errno.ENOMEM;
    if (old) {
      this.#flush(state, pasid, old.domain);
      old.domain.attachments.delete(old.attachment);
      state.slots.delete(pasid);
    }
    if (domain) {
      const attachment: Attachment = { state, pasid };
      domain.attachments.add(attachment);
      state.slots.set(pasid, { domain, attachment });
      // With caching mode the hardware may have cached that there was no entry.
      if (!old && this.unit.capabilities.CM) this.#flush(state, pasid, domain);
    }
    return 0;
  }

  /** Everything the hardware may have cached for a slot that held `domain`. */
  #flush(state: DeviceState, pasid: number, domain: AttachableDomain): void {
    const { did } = domain;
    const secondStage = domain instanceof VtdPagingDomain && domain.secondStage;
    const device =
      pasid === 0
        ? inv.encodeDeviceTlbInvalidate(state.rid, 0, 0, ALL_PAGES)
        : inv.encodePasidDeviceTlbInvalidate(state.rid, pasid, 0, 0, ALL_PAGES);
    this.queue.submit(
      inv.encodePasidCacheInvalidate({ G: inv.PASID_CACHE_G_PASID, DID: did, PASID: pasid }),
      secondStage
        ? inv.encodeIotlbInvalidate({ G: inv.G_DOMAIN, DID: did })
        : inv.encodePasidIotlbInvalidate({ G: inv.PASID_IOTLB_G_PASID, DID: did, PASID: pasid }),
      ...(state.atsEnabled ? [device] : []),
    );
  }

  #entry(domain: AttachableDomain): Int32Array {
    const PWSNP = this.unit.capabilities.SMPWCS;
    const common = { P: 1, DID: domain.did, PWSNP };
    if (domain instanceof VtdIdentityDomain)
      return pt.encodePasidEntry({ ...common, PGTT: pt.PGTT_PASS_THROUGH });
    const paging = domain instanceof VtdNestedDomain ? domain.parent : domain;
    // A second stage alone says it in its leaves.
    const PGSNP = Number(paging.table.snoop);
    const levels = paging.table.levels;
    // AW_39_BIT is 1, for three levels, and so on.
    const AW = levels - 3 + pt.AW_39_BIT;
    if (domain instanceof VtdNestedDomain) {
      const { pgtbl_addr, addr_width, flags } = domain.configuration;
      const set = (flag: number) => Number((flags & BigInt(flag)) !== 0n);
      return pt.encodePasidEntry({
        ...common,
        PGTT: pt.PGTT_NESTED,
        PGSNP,
        AW,
        SSPTPTR: paging.table.root,
        FSPM: addr_width === 57 ? pt.FSPM_5_LEVEL : pt.FSPM_4_LEVEL,
        FSPTPTR: Number(pgtbl_addr & ~0xfffn),
        SRE: set(IOMMU_VTD_S1_SRE),
        WPE: set(IOMMU_VTD_S1_SRE) & set(IOMMU_VTD_S1_WPE),
        EAFE: set(IOMMU_VTD_S1_EAFE),
      });
    }
    if (domain.secondStage)
      return pt.encodePasidEntry({ ...common, PGTT: pt.PGTT_SECOND_STAGE, AW, SSPTPTR: domain.table.root });
    return pt.encodePasidEntry({
      ...common,
      PGTT: pt.PGTT_FIRST_STAGE,
      PGSNP,
      FSPM: levels === 5 ? pt.FSPM_5_LEVEL : pt.FSPM_4_LEVEL,
      FSPTPTR: domain.table.root,
    });
  }

  #checkNested({ configuration }: VtdNestedDomain): number {
    const { addr_width, flags, pgtbl_addr } = configuration;
    const { FS5LP, SRS, EAFS } = this.unit.capabilities;
    const wants = (flag: number) => (flags & BigInt(flag)) !== 0n;
    if (addr_width !== 48 && !(addr_width === 57 && FS5LP)) return -errno.EINVAL;
    if (wants(IOMMU_VTD_S1_SRE) && !SRS) return -errno.EINVAL;
    if (wants(IOMMU_VTD_S1_EAFE) && !EAFS) return -errno.EINVAL;
    // A pointer the entry cannot hold exactly would lose bits silently.
    return pgtbl_addr >= 1n << 52n ? -errno.EINVAL : 0;
  }
}
