/** What VFIO_DEVICE_GET_INFO says of a device. */
import { failure } from './errors';
import { attemptBytes, call } from './ioctl';
import type { Kernel } from './kernel';
import * as uapi from './uapi';

/** What a device's vPASIDs are: RFC, section 1.4. */
export interface PasidCapability {
  /** The user owns the whole PASID table: one address space stands for it (PASID_DELEGATED). */
  readonly delegated: boolean;
  /** A vPASID may be carried by an instruction of the processor, ENQCMD (PASID_CPU). */
  readonly cpu: boolean;
  /** And the processor must translate it: KVM_MAP_PASID (PASID_CPU_VIRT). */
  readonly cpuVirt: boolean;
}

/** What VFIO_DEVICE_GET_INFO says. */
export interface DeviceInfo {
  /** The device can be reset with reset(). */
  readonly canReset: boolean;
  /** It is a PCI function. */
  readonly pci: boolean;
  readonly regions: number;
  readonly interrupts: number;
  /** Its vPASIDs; undefined where it has none, and on Linux, which does not tell (see hardwareInfo().maxPasidLog2). */
  readonly pasid: PasidCapability | undefined;
}

/** Throws IommuError. */
export function readDeviceInfo(kernel: Kernel, fd: number): DeviceInfo {
  const row = uapi.VFIO_DEVICE_GET_INFO;
  const info = call(kernel, fd, row, {});
  const hasMore = (info.flags & uapi.VFIO_DEVICE_FLAGS_CAPS) !== 0 && info.argsz > row.struct.size;
  return {
    canReset: (info.flags & uapi.VFIO_DEVICE_FLAGS_RESET) !== 0,
    pci: (info.flags & uapi.VFIO_DEVICE_FLAGS_PCI) !== 0,
    regions: info.num_regions,
    interrupts: info.num_irqs,
    pasid: hasMore ? decodePasid(readChain(kernel, fd, info.argsz)) : undefined,
  };
}

/** The struct with the capabilities behind it; `length` is the argsz that the kernel asked for. */
function readChain(kernel: Kernel, fd: number, length: number): Uint8Array {
  const row = uapi.VFIO_DEVICE_GET_INFO;
  const bytes = new Uint8Array(length);
  bytes.set(row.struct.encode({ argsz: length }));
  const result = attemptBytes(kernel, fd, row, bytes);
  if (result < 0) throw failure(result, { syscall: 'ioctl', request: row.name });
  return bytes;
}

/** The PASID capability in the chain; others are passed over. */
function decodePasid(bytes: Uint8Array): PasidCapability | undefined {
  const header = uapi.vfio_info_cap_header;
  for (let at = uapi.vfio_device_info.decode(bytes).cap_offset; at > 0 && at + header.size <= bytes.length;) {
    const { id, next } = header.decode(bytes, at);
    if (id === uapi.VFIO_DEVICE_INFO_CAP_PASID) {
      const { flags } = uapi.vfio_device_info_cap_pasid.decode(bytes, at);
      const has = (flag: number) => (flags & flag) !== 0;
      return {
        delegated: has(uapi.PASID_DELEGATED),
        cpu: has(uapi.PASID_CPU),
        cpuVirt: has(uapi.PASID_CPU_VIRT),
      };
    }
    // A chain that leads back has no end.
    if (next <= at) break;
    at = next;
  }
  return undefined;
}
