/** CHECK_EXTENSION of the RFC (section 2): what /dev/iommu can do, asked of the kernel where there is a request to ask. */
import type { Context } from './context';
import { attemptBytes } from './ioctl';
import { newerThan, type Ioctl, type Struct } from './uapi';
import * as uapi from './uapi';
import { IOMMU_NO_SNOOP_QUERY } from './uapi/proposal/no-snoop';
import { IOMMU_SLOT_OWNER } from './uapi/proposal/pasid';

/** How an extension is found: by a request that the kernel must know, by a flag of one, or known beforehand. */
type Probe =
  | { readonly row: Ioctl<Struct> }
  | { readonly request: string; readonly flags: number }
  | { readonly answer: boolean };

/** The RFC's names first, then those of what mainline has beyond it. */
const EXTENSIONS = {
  /** MAP and UNMAP of whole mappings, as VFIO's type1v2: an unmap never cuts one. */
  EXT_MAP_TYPE1V2: { row: uapi.IOMMU_IOAS_MAP },
  /** Address spaces on address spaces; deviceInfo() says for which devices the IOMMU itself walks both. */
  EXT_IOASID_NESTING: { row: uapi.IOMMU_IOAS_COPY },
  /** Page tables that the user keeps; deviceInfo() says for which devices. */
  EXT_USER_PAGE_TABLE: { row: uapi.IOMMU_HWPT_INVALIDATE },
  /** PASID tables that the user keeps, as address spaces. */
  EXT_USER_PASID_TABLE: { answer: false },
  /** Groups of more than one device. */
  EXT_MULTIDEV_GROUP: { row: uapi.IOMMU_IOAS_ALLOC },
  /** Address spaces that let DMA leave caches alone, and the query that KVM needs then. */
  EXT_DMA_NO_SNOOP: { row: IOMMU_NO_SNOOP_QUERY },
  /** vPASIDs of virtual machines, which processors translate: `Iommu.openVm()`. */
  EXT_PASID_TRANSLATION: { row: IOMMU_SLOT_OWNER },
  /** Which memory devices have written. */
  EXT_DIRTY_TRACKING: { row: uapi.IOMMU_HWPT_SET_DIRTY_TRACKING },
  /** Page faults reported to the user. */
  EXT_PAGE_FAULT: { row: uapi.IOMMU_FAULT_QUEUE_ALLOC },
  /** PASIDs attached to address spaces. */
  EXT_PASID: { request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', flags: uapi.VFIO_DEVICE_ATTACH_PASID },
  /** Memory mapped by its memfd. */
  EXT_MAP_FILE: { row: uapi.IOMMU_IOAS_MAP_FILE },
  /** changeProcess(). */
  EXT_CHANGE_PROCESS: { row: uapi.IOMMU_IOAS_CHANGE_PROCESS },
  /** Virtual IOMMUs with virtual devices. */
  EXT_VIRTUAL_IOMMU: { row: uapi.IOMMU_VIOMMU_ALLOC },
  /** Events of virtual IOMMUs. */
  EXT_EVENT_QUEUE: { row: uapi.IOMMU_VEVENTQ_ALLOC },
  /** Queues of a guest's that the IOMMU reads by itself. */
  EXT_HARDWARE_QUEUE: { row: uapi.IOMMU_HW_QUEUE_ALLOC },
  /** Mock devices (CONFIG_IOMMUFD_TEST). */
  EXT_MOCK_DEVICE: { row: uapi.IOMMU_TEST_CMD },
} as const satisfies Record<string, Probe>;

/** Name of an extension. */
export type Extension = keyof typeof EXTENSIONS;

/** All of them. */
export const extensionNames = Object.keys(EXTENSIONS) as readonly Extension[];

/** Throws TypeError. */
export function hasExtension({ kernel, fd }: Context, name: Extension): boolean {
  if (!Object.hasOwn(EXTENSIONS, name))
    throw new TypeError(`no extension is called ${String(name)}: ${extensionNames.join(', ')}`);
  const probe: Probe = EXTENSIONS[name];
  if ('answer' in probe) return probe.answer;
  if ('request' in probe)
    return newerThan(kernel.version, probe.request, { flags: probe.flags }) === undefined;
  // A size of 0 changes nothing: EINVAL from a kernel that knows the request, ENOTTY from one that does not.
  const { row } = probe;
  return attemptBytes(kernel, fd, row, new Uint8Array(row.struct.size)) !== -uapi.errno.ENOTTY;
}
