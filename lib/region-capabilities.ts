/** The capability chain behind struct vfio_region_info, decoded. */
import { failure } from './errors';
import { attemptBytes } from './ioctl';
import type { Kernel } from './kernel';
import * as uapi from './uapi';

/** What VFIO says about a region beyond its size and flags. */
export interface RegionCapabilities {
  /** Only these parts can be mapped; undefined: all of it, if any. Offsets and lengths in bytes. */
  readonly mappableAreas: readonly { readonly offset: number; readonly length: number }[] | undefined;
  /** The BAR holds the MSI-X table and can be mapped nevertheless; the table is the kernel's to write. */
  readonly msixMappable: boolean;
  /** What the region is, where its index does not say it: VFIO_REGION_TYPE_* and VFIO_REGION_SUBTYPE_*. */
  readonly type: { readonly type: number; readonly subtype: number } | undefined;
}

export const NO_CAPABILITIES: RegionCapabilities = {
  mappableAreas: undefined,
  msixMappable: false,
  type: undefined,
};

/** Decodes the chain that starts at `first` of `bytes`; what this package does not know is passed over. */
export function decodeRegionCapabilities(bytes: Uint8Array, first: number): RegionCapabilities {
  const found = { ...NO_CAPABILITIES };
  const header = uapi.vfio_info_cap_header;
  for (let at = first; at > 0 && at + header.size <= bytes.length;) {
    const { id, next } = header.decode(bytes, at);
    if (id === uapi.VFIO_REGION_INFO_CAP_SPARSE_MMAP) found.mappableAreas = areasAt(bytes, at);
    else if (id === uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE) found.msixMappable = true;
    else if (id === uapi.VFIO_REGION_INFO_CAP_TYPE) {
      const { type, subtype } = uapi.vfio_region_info_cap_type.decode(bytes, at);
      found.type = { type, subtype };
    }
    // A chain that leads back has no end.
    if (next <= at) break;
    at = next;
  }
  return found;
}

function areasAt(bytes: Uint8Array, at: number) {
  const { nr_areas } = uapi.vfio_region_info_cap_sparse_mmap.decode(bytes, at);
  const area = uapi.vfio_region_sparse_mmap_area;
  return Array.from({ length: nr_areas }, (_, i) => {
    const { offset, size } = area.decode(
      bytes,
      at + uapi.vfio_region_info_cap_sparse_mmap.size + i * area.size,
    );
    return { offset: Number(offset), length: Number(size) };
  });
}

/** Asks for a region's chain; `length` is the argsz that the kernel asked for. Throws IommuError. */
export function readRegionCapabilities(
  kernel: Kernel,
  fd: number,
  index: number,
  length: number,
): RegionCapabilities {
  const row = uapi.VFIO_DEVICE_GET_REGION_INFO;
  const bytes = new Uint8Array(length);
  bytes.set(row.struct.encode({ argsz: length, index }));
  const result = attemptBytes(kernel, fd, row, bytes);
  if (result < 0) throw failure(result, { syscall: 'ioctl', request: row.name });
  return decodeRegionCapabilities(bytes, row.struct.decode(bytes).cap_offset);
}
