/** What the objects say on a kernel older than what they ask for. */
import { Iommu, type AddressSpace, type BoundDevice, type IommuError } from '../lib';
import { attempt } from '../lib/ioctl';
import { openKernel } from '../lib/open-kernel';
import { Machine } from '../lib/sim';
import * as uapi from '../lib/uapi';
import { alteredKernel } from './altered-kernel';
import { errorOf } from './contract/support';
import { ScriptedKernel } from './scripted-kernel';

const PAGE = 4096;

/**
 * The simulated kernel as an older Linux: `unknown` requests give ENOTTY, and what `refuse` names an errno of its own.
 */
function openOld(
  version: string,
  unknown: readonly { name: string; request: number }[],
  refuse: (request: number, bytes: Uint8Array) => number | undefined = () => undefined,
) {
  const inner = openKernel(new Machine({ iommu: 'mock' }));
  const requests = unknown.map(({ request }) => request);
  const kernel = alteredKernel(inner, {
    version,
    ioctl: (fd, request, bytes) =>
      requests.includes(request)
        ? -uapi.errno.ENOTTY
        : (refuse(request, bytes as Uint8Array) ?? inner.ioctl(fd, request, bytes)),
  });
  const iommu = Iommu.open({ backend: kernel });
  return { iommu, device: iommu.createMockDevice({ cookie: 1 }) };
}

interface Case {
  readonly row: { readonly name: string; readonly request: number };
  readonly version: string;
  readonly since: string;
  readonly use: (iommu: Iommu, device: BoundDevice) => unknown;
}

function nesting(iommu: Iommu, device: BoundDevice) {
  const parent = iommu.createPageTable(device, { parent: iommu.createAddressSpace(), nestParent: true });
  return { parent, viommu: () => iommu.createVirtualIommu(device, { parent, type: 0xdeadbeef }) };
}

const tracked = (iommu: Iommu, device: BoundDevice) =>
  iommu.createPageTable(device, { parent: iommu.createAddressSpace(), dirtyTracking: true });

const cases: Case[] = [
  {
    row: uapi.IOMMU_FAULT_QUEUE_ALLOC,
    version: 'Linux 6.10.2',
    since: '6.11',
    use: (iommu) => iommu.createFaultQueue(),
  },
  {
    row: uapi.IOMMU_GET_HW_INFO,
    version: 'Linux 6.5',
    since: '6.6',
    use: (_, device) => device.hardwareInfo(),
  },
  {
    row: uapi.IOMMU_HWPT_ALLOC,
    version: 'Linux 6.5',
    since: '6.6',
    use: (iommu, device) => iommu.createPageTable(device, { parent: iommu.createAddressSpace() }),
  },
  {
    row: uapi.IOMMU_HWPT_SET_DIRTY_TRACKING,
    version: 'Linux 6.6.1',
    since: '6.7',
    use: (iommu, device) => tracked(iommu, device).trackDirty(),
  },
  {
    row: uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,
    version: 'Linux 6.6.1',
    since: '6.7',
    use: (iommu, device) => {
      const table = tracked(iommu, device);
      (table.space as AddressSpace).map(iommu.allocateDma(PAGE), { iova: 1 << 24 });
      table.readDirty();
    },
  },
  {
    row: uapi.IOMMU_HWPT_INVALIDATE,
    version: 'Linux 6.7',
    since: '6.8',
    use: (iommu, device) => nesting(iommu, device).viommu().invalidate({ type: 0xdeadbeef, entries: [] }),
  },
  {
    row: uapi.IOMMU_VIOMMU_ALLOC,
    version: 'Linux 6.12.48',
    since: '6.13',
    use: (iommu, device) => nesting(iommu, device).viommu(),
  },
  {
    row: uapi.IOMMU_VDEVICE_ALLOC,
    version: 'Linux 6.12.48',
    since: '6.13',
    use: (iommu, device) => nesting(iommu, device).viommu().createDevice(device, { virtId: 1 }),
  },
  {
    row: uapi.IOMMU_IOAS_CHANGE_PROCESS,
    version: 'Linux 6.12.48',
    since: '6.13',
    use: (iommu) => iommu.changeProcess(),
  },
  {
    row: uapi.IOMMU_VEVENTQ_ALLOC,
    version: 'Linux 6.14',
    since: '6.15',
    use: (iommu, device) =>
      nesting(iommu, device)
        .viommu()
        .createEventQueue({ type: { id: 0xbeefbeef, recordSize: 4 }, depth: 1 }),
  },
  {
    row: uapi.IOMMU_HW_QUEUE_ALLOC,
    version: 'Linux 6.16.9',
    since: '6.17',
    use: (iommu, device) =>
      nesting(iommu, device)
        .viommu()
        .createHardwareQueue({ type: 0xdeadbeef, index: 0, iova: 1 << 24, length: PAGE }),
  },
];

test.each(cases.map((one) => [one.row.name, one] as const))(
  '%s: the hint names the version that brought it',
  (name, { row, version, since, use }) => {
    const { iommu, device } = openOld(version, [row]);
    const error = errorOf(() => use(iommu, device)) as IommuError;
    expect(error).toMatchObject({ code: 'ENOTTY', request: name });
    expect(error.hint).toBe(`${name} needs Linux ${since} or newer; this is ${version}`);
    iommu.close();
  },
);

test.each([
  ['IOMMU_HWPT_ALLOC_PASID', '6.15', 'EOPNOTSUPP', { pasid: true }],
  ['IOMMU_HWPT_ALLOC_DIRTY_TRACKING', '6.7', 'E2BIG', { dirtyTracking: true }],
  ['IOMMU_HWPT_ALLOC_NEST_PARENT', '6.7', 'EOPNOTSUPP', { nestParent: true }],
] as const)('the flag %s needs Linux %s', (name, since, code, form) => {
  const version = 'Linux 6.6.30';
  const { iommu, device } = openOld(version, [], (request, bytes) =>
    request === uapi.IOMMU_HWPT_ALLOC.request && uapi.iommu_hwpt_alloc.decode(bytes).flags
      ? -uapi.errno[code]
      : undefined,
  );
  const error = errorOf(() =>
    iommu.createPageTable(device, { parent: iommu.createAddressSpace(), ...form }),
  ) as IommuError;
  expect(error).toMatchObject({ code, request: 'IOMMU_HWPT_ALLOC' });
  expect(error.hint).toContain(`${name} needs Linux ${since} or newer; this is ${version}`);
  iommu.close();
});

test('a kernel new enough is not blamed', () => {
  const { iommu, device } = openOld('Linux 7.3.4', [], (request) =>
    request === uapi.IOMMU_HWPT_ALLOC.request ? -uapi.errno.EOPNOTSUPP : undefined,
  );
  const error = errorOf(() =>
    iommu.createPageTable(device, { parent: iommu.createAddressSpace(), pasid: true }),
  ) as IommuError;
  expect(error.hint).toContain('hardwareInfo()');
  expect(error.hint).not.toContain('Linux');
  iommu.close();
});

test('VFIO before 6.15 answers EINVAL to a PASID', () => {
  const kernel = new Machine().process();
  const old = alteredKernel(kernel, {
    version: 'Linux 6.14.0',
    ioctl: (fd, request, bytes) =>
      request === uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT.request &&
      uapi.vfio_device_attach_iommufd_pt.decode(pad(bytes as Uint8Array)).flags
        ? -uapi.errno.EINVAL
        : kernel.ioctl(fd, request, bytes),
  });
  using iommu = Iommu.open({ backend: old });
  const device = iommu.bind('0000:00:05.0', { cookie: 1 });
  const space = iommu.createAddressSpace({ pasid: true });
  const error = errorOf(() => device.attach(space, { pasid: 4 })) as IommuError;
  expect(error).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' });
  expect(error.hint).toContain('VFIO_DEVICE_ATTACH_PASID needs Linux 6.15 or newer; this is Linux 6.14.0');
});

function pad(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(uapi.vfio_device_attach_iommufd_pt.size);
  whole.set(bytes.subarray(0, whole.length));
  return whole;
}

test('checkExtension says what an older kernel lacks', () => {
  const unknown = [uapi.IOMMU_HWPT_INVALIDATE, uapi.IOMMU_FAULT_QUEUE_ALLOC];
  const { iommu } = openOld('Linux 6.14.0', unknown);
  const old = (['EXT_USER_PAGE_TABLE', 'EXT_PAGE_FAULT', 'EXT_PASID'] as const).map((name) =>
    iommu.checkExtension(name),
  );
  expect(old).toEqual([false, false, false]);
  expect(iommu.checkExtension('EXT_VIRTUAL_IOMMU')).toBe(true);
  iommu.close();
  using plain = Iommu.open({ backend: new Machine() });
  expect(plain.checkExtension('EXT_MOCK_DEVICE')).toBe(false);
});

test('before 6.13 a memfd is mapped by its address', () => {
  const { iommu, device } = openOld('Linux 6.12.48', [uapi.IOMMU_IOAS_MAP_FILE]);
  const space = iommu.createAddressSpace();
  device.attach(space);
  const buffer = iommu.allocateDma(2 * PAGE, { memfd: true });
  const { iova } = space.map(buffer, { offset: PAGE });
  expect('translates' in device && device.translates(iova, buffer, { offset: PAGE })).toBe(true);
  iommu.close();
});

test('before 6.13 many are, and so is what else is mapped with them', () => {
  const asked: number[] = [];
  const { iommu, device } = openOld('Linux 6.12.48', [], (request) => {
    asked.push(request);
    return request === uapi.IOMMU_IOAS_MAP_FILE.request ? -uapi.errno.ENOTTY : undefined;
  });
  const space = iommu.createAddressSpace();
  device.attach(space);
  const [plain, file] = [iommu.allocateDma(PAGE), iommu.allocateDma(PAGE, { memfd: true })];
  asked.length = 0;
  const mappings = space.mapMany([plain, file, plain, file].map((source) => ({ source })));
  const { IOMMU_IOAS_MAP: map, IOMMU_IOAS_MAP_FILE: mapFile } = uapi;
  // The batch stopped at the first file; the rest of it was made again, and no file was tried any more.
  expect(asked).toEqual([map, mapFile, map, map, map].map(({ request }) => request));
  for (const { iova, buffer } of mappings)
    expect('translates' in device && device.translates(iova, buffer)).toBe(true);
  iommu.close();
});

test('a scripted kernel that knows nothing names no version it is not asked about', () => {
  const kernel = new ScriptedKernel();
  kernel.ioctls.set(uapi.IOMMU_TEST_CMD.request, () => -uapi.errno.ENOTTY);
  expect(attempt(kernel, 3, uapi.IOMMU_TEST_CMD, {}).result).toBe(-uapi.errno.ENOTTY);
  kernel.files.set('/dev/iommu', 3);
  kernel.ioctls.set(uapi.IOMMU_IOAS_ALLOC.request, () => 0);
  kernel.ioctls.set(uapi.IOMMU_DESTROY.request, () => 0);
  const iommu = Iommu.open({ backend: kernel });
  const error = errorOf(() => iommu.createMockDevice({ cookie: 1 })) as IommuError;
  expect(error.hint).toBe('this kernel has no mock IOMMU: it needs CONFIG_IOMMUFD_TEST');
});
