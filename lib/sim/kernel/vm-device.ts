/** What a VFIO device file has to know of the virtual machine that it belongs to: one at a time. */
import type { EnqueueingVm } from '../cpu/enqcmd';
import type { OpenFile } from './file';

export interface DeviceVm extends EnqueueingVm {
  /** The device leaves. */
  remove(file: VmDeviceFile): void;
}

export interface VmDeviceFile extends OpenFile {
  vm: DeviceVm | undefined;
}
