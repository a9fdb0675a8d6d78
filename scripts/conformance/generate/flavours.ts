/** What kinds of random sequences there are: how they start, and how often they do what. */
import type { Sequence } from '../program';
import { Random } from '../random';
import { Builder } from './builder';
import * as compat from './compat';
import * as files from './files';
import * as hwpt from './hwpt';
import * as ioas from './ioas';
import * as mock from './mock';
import * as vfio from './vfio';
import * as vfioFeatures from './vfio-features';
import * as viommu from './viommu';

const actions = {
  ...ioasActions(),
  ...compatActions(),
  ...hwptActions(),
  ...viommuActions(),
  ...fileActions(),
  ...vfioActions(),
  ...mockActions(),
};
type Action = keyof typeof actions;
type Weights = readonly (readonly [Action, number])[];

function ioasActions() {
  const { ioasAlloc, ioasMap, ioasMapFile, ioasCopy, ioasUnmap, ioasAllowIovas, ioasIovaRanges } = ioas;
  const { option, changeProcess, status } = ioas;
  const mappings = { ioasAlloc, ioasMap, ioasMapFile, ioasCopy, ioasUnmap, ioasAllowIovas, ioasIovaRanges };
  return { ...mappings, option, changeProcess, status };
}

function compatActions() {
  const { vfioIoas, firstVersion, setIommu, checkExtension, containerInfo, mapDma, unmapDma } = compat;
  const { dirtyPages, getPhysicalAddress } = compat;
  const container = { firstVersion, setIommu, checkExtension, containerInfo, mapDma, unmapDma, dirtyPages };
  return { ...container, vfioIoas, getPhysicalAddress };
}

function hwptActions() {
  const { destroy, hwptAlloc, invalidate, hardwareInfo, setDirtyTracking, dirtyBitmap, faultQueueAlloc } =
    hwpt;
  return { destroy, hwptAlloc, invalidate, hardwareInfo, setDirtyTracking, dirtyBitmap, faultQueueAlloc };
}

function viommuActions() {
  const { viommuAlloc, vdeviceAlloc, veventqAlloc, hwQueueAlloc } = viommu;
  return { viommuAlloc, vdeviceAlloc, veventqAlloc, hwQueueAlloc };
}

function fileActions() {
  const { read, write, poll, close, eventfd, iommufd, mmap, munmap, unknown } = files;
  return { read, write, poll, close, eventfd, iommufd, mmap, munmap, unknown };
}

function vfioActions() {
  const { bind, attach, detach, deviceInfo, regionInfo, irqInfo, setIrqs, reset, other, config, bar } = vfio;
  const { sibling, hotResetInfo, hotReset, ioeventfd, features } = vfioFeatures;
  const basic = { bind, attach, detach, deviceInfo, regionInfo, irqInfo, setIrqs, reset, other, config, bar };
  return { ...basic, sibling, hotResetInfo, hotReset, ioeventfd, features };
}

function mockActions() {
  const { mockDomain, mockReplace, addReserved, checkMap, checkRefs, createAccess, replaceAccess } = mock;
  const { accessPages, destroyAccessPages, accessRw, dirty, checkIotlb, checkCache } = mock;
  const { triggerFault, triggerEvent, pasid, dmabuf } = mock;
  const objects = { mockDomain, mockReplace, addReserved, checkMap, checkRefs, createAccess, replaceAccess };
  const accesses = { accessPages, destroyAccessPages, accessRw, dirty, checkIotlb, checkCache };
  return { ...objects, ...accesses, triggerFault, triggerEvent, pasid, dmabuf };
}

const WITHOUT_DEVICE: Weights = [
  ['ioasAlloc', 8],
  ['ioasMap', 22],
  ['ioasMapFile', 7],
  ['ioasCopy', 8],
  ['ioasUnmap', 14],
  ['ioasAllowIovas', 8],
  ['ioasIovaRanges', 8],
  ['option', 6],
  ['changeProcess', 3],
  ['status', 1],
  ['vfioIoas', 3],
  ['firstVersion', 4],
  ['setIommu', 2],
  ['checkExtension', 1],
  ['containerInfo', 3],
  ['mapDma', 8],
  ['unmapDma', 9],
  ['dirtyPages', 1],
  ['getPhysicalAddress', 2],
  ['destroy', 6],
  ['faultQueueAlloc', 2],
  ['hwptAlloc', 2],
  ['invalidate', 2],
  ['hardwareInfo', 2],
  ['setDirtyTracking', 1],
  ['dirtyBitmap', 1],
  ['viommuAlloc', 1],
  ['vdeviceAlloc', 1],
  ['veventqAlloc', 1],
  ['hwQueueAlloc', 1],
  ['read', 2],
  ['write', 2],
  ['poll', 1],
  ['close', 1],
  ['unknown', 1],
  ['mmap', 1],
];

const TABLES: Weights = [
  ['ioasAlloc', 6],
  ['ioasMap', 14],
  ['ioasMapFile', 6],
  ['ioasCopy', 5],
  ['ioasUnmap', 8],
  ['ioasAllowIovas', 4],
  ['ioasIovaRanges', 6],
  ['option', 3],
  ['changeProcess', 2],
  ['status', 4],
  ['vfioIoas', 2],
  ['firstVersion', 3],
  ['setIommu', 1],
  ['checkExtension', 1],
  ['containerInfo', 3],
  ['mapDma', 6],
  ['unmapDma', 7],
  ['getPhysicalAddress', 2],
  ['destroy', 6],
  ['hwptAlloc', 9],
  ['invalidate', 3],
  ['hardwareInfo', 4],
  ['setDirtyTracking', 2],
  ['dirtyBitmap', 2],
  ['faultQueueAlloc', 3],
  ['viommuAlloc', 2],
  ['vdeviceAlloc', 1],
  ['veventqAlloc', 1],
  ['hwQueueAlloc', 1],
  ['read', 2],
  ['write', 2],
  ['poll', 1],
  ['close', 1],
  ['mmap', 1],
];

interface Flavour {
  readonly name: string;
  /** One sequence in how many, all flavours' shares together. */
  readonly share: number;
  /** Ioctls without which there is no point in it. */
  readonly needs: readonly string[];
  readonly weights: Weights;
  begin(builder: Builder): void;
}

function openIommufd(builder: Builder): void {
  builder.context = builder.add({ op: 'open', path: '/dev/iommu' });
  builder.file('iommufd', builder.context);
  // Without an address space there is little to be done.
  if (!builder.random.oneIn(15)) ioas.firstIoas(builder);
}

function openDevice(builder: Builder): void {
  openIommufd(builder);
  const { random } = builder;
  const path = random.oneIn(3) ? random.pick([vfio.SINGLE_PATH, ...vfio.PAIR_PATHS]) : vfio.VFIO_PATH;
  const device = builder.add({ op: 'open', path });
  builder.file('vfio', device);
  if (builder.random.oneIn(15)) return;
  const iommufd = { iommufd: { fd: builder.context } };
  const label = builder.exactly('VFIO_DEVICE_BIND_IOMMUFD', iommufd, { fd: device });
  builder.made('device', label, 'out_devid');
}

function openMock(builder: Builder): void {
  openIommufd(builder);
  mock.mockDomain(builder);
}

function openVirtual(builder: Builder): void {
  builder.context = builder.add({ op: 'open', path: '/dev/iommu' });
  builder.file('iommufd', builder.context);
  viommu.makeWorld(builder, ioas.firstIoas(builder));
  for (let maps = builder.random.below(3); maps > 0; maps--) ioas.ioasMap(builder);
}

export const flavours: readonly Flavour[] = [
  { name: 'plain', share: 55, needs: [], weights: WITHOUT_DEVICE, begin: openIommufd },
  {
    name: 'several',
    share: 15,
    needs: [],
    weights: [...WITHOUT_DEVICE, ['iommufd', 14]],
    begin: openIommufd,
  },
  {
    name: 'bound',
    share: 30,
    needs: [],
    weights: [
      ...TABLES,
      ['attach', 14],
      ['detach', 4],
      ['bind', 2],
      ['deviceInfo', 2],
      ['regionInfo', 4],
      ['irqInfo', 3],
      ['setIrqs', 8],
      ['eventfd', 4],
      ['reset', 1],
      ['other', 3],
      ['config', 5],
      ['bar', 4],
      ['iommufd', 1],
      ['sibling', 3],
      ['hotResetInfo', 3],
      ['hotReset', 2],
      ['ioeventfd', 5],
      ['features', 6],
    ],
    begin: openDevice,
  },
  {
    name: 'mock',
    share: 60,
    needs: ['IOMMU_TEST_CMD'],
    weights: [
      ...TABLES,
      ['mockDomain', 5],
      ['mockReplace', 7],
      ['addReserved', 2],
      ['checkMap', 4],
      ['checkRefs', 1],
      ['createAccess', 3],
      ['replaceAccess', 2],
      ['accessPages', 4],
      ['destroyAccessPages', 2],
      ['accessRw', 4],
      ['dirty', 4],
      ['checkIotlb', 3],
      ['checkCache', 2],
      ['triggerFault', 5],
      ['triggerEvent', 3],
      ['pasid', 6],
      ['dmabuf', 3],
      ['read', 6],
      ['write', 4],
      ['viommuAlloc', 4],
      ['vdeviceAlloc', 3],
      ['veventqAlloc', 3],
      ['hwQueueAlloc', 3],
      ['invalidate', 4],
    ],
    begin: openMock,
  },
  {
    name: 'virtual',
    share: 40,
    needs: ['IOMMU_TEST_CMD', 'IOMMU_VIOMMU_ALLOC'],
    weights: [
      ['ioasAlloc', 1],
      ['ioasMap', 8],
      ['ioasMapFile', 1],
      ['option', 1],
      ['vfioIoas', 2],
      ['firstVersion', 1],
      ['unmapDma', 3],
      ['ioasCopy', 1],
      ['ioasUnmap', 8],
      ['ioasIovaRanges', 2],
      ['destroy', 12],
      ['hwptAlloc', 6],
      ['invalidate', 6],
      ['faultQueueAlloc', 1],
      ['viommuAlloc', 4],
      ['vdeviceAlloc', 6],
      ['veventqAlloc', 5],
      ['hwQueueAlloc', 9],
      ['mockDomain', 4],
      ['mockReplace', 8],
      ['triggerEvent', 14],
      ['triggerFault', 1],
      ['checkCache', 5],
      ['checkIotlb', 2],
      ['pasid', 3],
      ['createAccess', 1],
      ['accessPages', 2],
      ['read', 10],
      ['write', 1],
      ['poll', 3],
      ['mmap', 5],
      ['munmap', 2],
      ['close', 2],
      ['iommufd', 1],
    ],
    begin: openVirtual,
  },
];

/** What a generator is told: the same on both sides, and so are its sequences. */
export interface GeneratorOptions {
  readonly seed: number;
  /** Ioctls that one of the kernels does not have. */
  readonly excluded: readonly string[];
  /** Names of flavours; all that make sense if empty. */
  readonly only: readonly string[];
}

/** Makes sequence number `index`, 0 and up. */
export class Generator {
  readonly #flavours: readonly Flavour[];
  readonly #excluded: ReadonlySet<string>;

  constructor(readonly options: GeneratorOptions) {
    const { excluded, only } = options;
    this.#excluded = new Set(excluded);
    this.#flavours = flavours.filter(
      ({ name, needs }) =>
        (only.length === 0 || only.includes(name)) && !needs.some((each) => this.#excluded.has(each)),
    );
    if (this.#flavours.length === 0) throw new RangeError('no flavour of sequences is left');
  }

  sequence(index: number): Sequence {
    const random = new Random(this.options.seed, index);
    const name = random.weighted(this.#flavours.map((flavour) => [flavour.name, flavour.share] as const));
    const flavour = this.#flavours.find((each) => each.name === name)!;
    const builder = new Builder(random, this.#excluded);
    // Some sequences are clean, so that they get far.
    builder.hostility = random.pick([3, 6, 12, 1000]);
    builder.onlyFiles = random.oneIn(6);
    flavour.begin(builder);
    const length = builder.calls.length + 3 + random.below(random.oneIn(4) ? 30 : 12);
    for (let tries = 0; builder.calls.length < length && tries < 100; tries++)
      actions[random.weighted(flavour.weights)](builder);
    return { name: `${name} ${index}`, calls: builder.calls };
  }
}
