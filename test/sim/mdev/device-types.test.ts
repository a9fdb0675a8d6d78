/** The eight types of devices of the RFC (section 1.4), and what each says of its PASIDs. */
import { Iommu, type Device, type PasidCapability } from '../../../lib';
import { ChannelEngine, DmaEngine, Edu, type Machine } from '../../../lib/sim';
import { attempt, attemptBytes } from '../../../lib/ioctl';
import * as uapi from '../../../lib/uapi';
import { errorOf } from '../../contract/support';
import { bindNew, machineWith, PARENT, parentDevice, spaceWith, type TypeName } from './parent';

const IOVA = 0x100000n;
const EDU = '0000:00:04.0';
const ENGINE = '0000:00:05.0';
const CHANNELS = '0000:00:08.0';

let machine: Machine;
let iommu: Iommu;

beforeEach(() => {
  const devices = {
    [EDU]: new Edu(),
    [ENGINE]: new DmaEngine(),
    [PARENT]: parentDevice(),
    [CHANNELS]: new ChannelEngine(),
  };
  machine = machineWith({ devices });
  iommu = Iommu.open({ backend: machine });
});
afterEach(() => iommu.close());

const none = undefined;
const table = { delegated: false, cpu: false, cpuVirt: false };

const pdev = (bdf: string) => () => iommu.bind(bdf, { cookie: 1n });
const mdev = (type: TypeName) => () => bindNew(iommu, type, 1n);

const TYPES: [number, () => Device, PasidCapability | undefined][] = [
  [1, pdev(EDU), none],
  [2, mdev('software'), none],
  [3, mdev('channel'), none],
  [5, pdev(ENGINE), table],
  [6, mdev('pasid'), table],
  [7, pdev(CHANNELS), { ...table, cpu: true }],
  [8, mdev('enqcmd'), { ...table, cpu: true, cpuVirt: true }],
];

test.each(TYPES)('type %i says what it has, and takes vPASIDs only if it has them', (_type, bind, pasid) => {
  const device = bind();
  expect(device.info()).toMatchObject({ pci: true, regions: 9, pasid });
  const { space } = spaceWith(iommu, IOVA, { pasid: true });
  const attach = () => device.attach(space, { pasid: 5 });
  if (pasid === undefined) expect(errorOf(attach)).toMatchObject({ code: 'EOPNOTSUPP' });
  else expect(attach).not.toThrow();
  expect(device.attached(5)).toBe(pasid && space);
});

test('type 4, a PASID table of the user’s own, is for IOMMUs that are not there', () => {
  const device = iommu.bind(ENGINE, { cookie: 1n });
  expect(device.info().pasid?.delegated).toBe(false);
  expect(iommu.checkExtension('EXT_USER_PASID_TABLE')).toBe(false);
  expect(iommu.deviceInfo(1n).userPasidTables).toEqual([]);
});

describe('VFIO_DEVICE_GET_INFO', () => {
  const row = uapi.VFIO_DEVICE_GET_INFO;
  const capability = uapi.vfio_device_info_cap_pasid;
  const whole = row.struct.size + capability.size;

  test('has a capability behind the struct, whose length the first call learns', () => {
    const { fd } = mdev('enqcmd')();
    const { out } = attempt(iommu.kernel, fd, row, {});
    expect(out).toMatchObject({ argsz: whole, cap_offset: 0 });
    expect(out.flags & uapi.VFIO_DEVICE_FLAGS_CAPS).not.toBe(0);
    const bytes = new Uint8Array(whole);
    bytes.set(row.struct.encode({ argsz: whole }));
    expect(attemptBytes(iommu.kernel, fd, row, bytes)).toBe(0);
    expect(row.struct.decode(bytes).cap_offset).toBe(row.struct.size);
    expect(capability.decode(bytes, row.struct.size)).toMatchObject({
      header: { id: 0x8005, version: 1, next: 0 },
      flags: uapi.PASID_CPU | uapi.PASID_CPU_VIRT,
    });
    expect(attemptBytes(iommu.kernel, fd, row, bytes.subarray(0, whole - 1))).toBe(-uapi.errno.EFAULT);
  });

  test('is what Linux answers for a device without PASIDs', () => {
    const { fd } = pdev(EDU)();
    const { out } = attempt(iommu.kernel, fd, row, {});
    expect(out).toMatchObject({ argsz: row.struct.size, cap_offset: 0 });
    expect(out.flags & uapi.VFIO_DEVICE_FLAGS_CAPS).toBe(0);
  });
});
