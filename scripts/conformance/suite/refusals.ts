/** Refusals that only certain states lead to, and system calls other than ioctl. */
import * as uapi from '../../../lib/uapi';
import type { FdRef, Sequence } from '../program';
import { data, PAGE, script } from './world';

const MSI = 0xfee0_0000;
const { IOMMU_HWPT_FAULT_ID_VALID: FAULT, IOMMU_HWPT_ALLOC_PASID: PASID } = uapi;

const inTheWay = script('mappings that a device cannot have', (s) => {
  const [msi, odd] = [s.ioas(), s.ioas()];
  const device = s.bind();
  s.map(msi, MSI, PAGE);
  s.map(odd, 0x1_0001, 3, { user_va: data(1) });
  s.hwpt(device, msi);
  s.hwpt(device, odd);
  s.attach(msi);
  s.attach(odd);
  s.unmap(msi, 0, '0xffffffffffffffff');
  s.attach(msi);
});

const withoutPri = script('a table with faults, on a device without PRI', (s) => {
  const ioas = s.ioas();
  const device = s.bind();
  const { id } = s.faultQueue();
  const hwpt = s.hwpt(device, ioas, FAULT, { fault_id: id });
  s.attach(hwpt);
  s.attach(ioas);
  s.attach(hwpt);
  s.destroy(hwpt);
});

const largePasids = script('PASIDs that no device can have', (s) => {
  const ioas = s.ioas();
  const hwpt = s.hwpt(s.bind(), ioas, PASID);
  s.attach(hwpt);
  for (const pasid of [0x10_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    s.call('VFIO_DEVICE_ATTACH_IOMMUFD_PT', { flags: 1, pasid, pt_id: hwpt });
    s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', { flags: 1, pasid });
  }
});

const interrupts = script('SET_IRQS: descriptors that are no eventfds', (s) => {
  s.bind();
  const fds = ['-1', 0x7fff_fff0, { fd: s.iommufd }, { fd: 'memfd' }] as const;
  for (const index of [uapi.VFIO_PCI_INTX_IRQ_INDEX, uapi.VFIO_PCI_MSI_IRQ_INDEX])
    for (const fd of fds)
      s.call(
        'VFIO_DEVICE_SET_IRQS',
        {
          argsz: 24,
          flags: uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER,
          index,
          count: 1,
        },
        { extra: { offset: 20, width: 4, values: [fd] } },
      );
});

const files = script('mmap, read, write, pread, pwrite of everything', (s) => {
  const { fd } = s.faultQueue();
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 1 });
  const all: FdRef[] = [s.iommufd, s.device, fd, eventfd, 'none'];
  const bytes = { offset: 0, width: 4, values: [0, 0] } as const;
  for (const each of all) {
    for (const offset of [0, PAGE, 7 * 2 ** 40])
      s.builder.add({ op: 'mmap', fd: each, offset, length: PAGE });
    s.read(each, 0, 8, 7);
    s.builder.add({ op: 'pread', fd: each, offset: 0, length: 8 });
    // Registers of the device are written where the suite knows what they do.
    if (each === s.device) continue;
    for (const length of [0, 8, 7]) s.builder.add({ op: 'write', fd: each, length, bytes });
    s.builder.add({ op: 'pwrite', fd: each, offset: 0, length: 8, bytes });
  }
});

const unknown = script('numbers that no ioctl has', (s) => {
  s.bind();
  const numbers = [0x3b00, 0x3b60, 0x3b7f, 0x3b96, 0x3b9f, 0x3ba1, 0x3bff, 0x7880];
  for (const fd of [s.iommufd, s.device])
    for (const number of [...numbers, 0x3b80 | (1 << 16), 0x3b84 | (1 << 30), 0x4000_3b81, 0xc000_3b6e])
      s.builder.add({ op: 'ioctl', fd, request: number, fields: {} });
});

export const refusals: readonly Sequence[] = [inTheWay, withoutPri, largePasids, interrupts, files, unknown];
