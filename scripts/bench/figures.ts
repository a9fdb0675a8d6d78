// What is measured, and beside what.
import type { Trial } from './trial';

/** What has to run for one number: where it is several trials, their sum. */
export type Side = readonly Trial[];

export interface Figure {
  readonly name: string;
  /** What one unit of work is, for people. */
  readonly about: string;
  readonly unit: string;
  readonly ours: Side;
  readonly peers: Readonly<Record<string, Side>>;
  /** Trials of each side, at most: of what takes long to set up. */
  readonly mostRuns?: number;
  /** All sides run in the VM (`npm run vm`), in one guest with the other figures that do. */
  readonly inVm?: boolean;
}

const script = (name: string, ...args: string[]): Trial => ({ script: name, arguments: args });
const c = (source: string, ...args: string[]): Trial => ({ source, arguments: args });

function translate(name: string, pages: number, about: string): Figure {
  return {
    name,
    about: `VtdUnit.locate, ${about}, four-level first stage`,
    unit: 'ns',
    ours: [script('translate', String(pages))],
    peers: {
      C: [c('translate', String(pages))],
      'naive JS': [script('translate-naive', String(pages))],
    },
  };
}

/** IOMMU_IOAS_UNMAP, which only an iommufd knows; and one that every file has. */
const UNKNOWN = '0x3b86';
const FIOCLEX = '0x5451';

/** Node has threads: with the second, C pays what the kernel asks of any process that has some. */
function inC(source: string, ...args: string[]): Record<string, Side> {
  return { C: [c(source, ...args, '1')], 'C, threads': [c(source, ...args, '2')] };
}

function ioctl(name: string, way: string, request: string, about: string): Figure {
  return {
    name,
    about: `one ioctl through the addon, ${about}`,
    unit: 'ns',
    ours: [script('ioctl', way, request)],
    peers: inC('ioctl', request),
  };
}

const MILLION = 1_000_000;

function mapUnmap(name: string, way: string, live: number, about: string): Figure {
  const beside = (count: number) => script('map-unmap', way, String(count));
  return {
    name: `${name}-${live}`,
    about: `${about}, simulated, edu attached, ${live} mapping${live === 1 ? '' : 's'} live`,
    unit: 'ns',
    ours: [beside(live)],
    // One shows what the objects cost, the others how the cost grows.
    peers: live === 1 ? { 'raw ioctls': [script('map-unmap', 'ioctl', '1')] } : { '1 live': [beside(1)] },
    ...(live === MILLION && { mostRuns: 1 }),
  };
}

function vmMapUnmap(name: string, way: string, about: string): Figure {
  return {
    name,
    about: `in the VM, on Linux: a page mapped at an IOVA and unmapped, edu attached, ${about}`,
    unit: 'ns',
    ours: [script('vm-map-unmap', way)],
    peers: inC('vm-map-unmap'),
    inVm: true,
  };
}

function ringWakeup(at: string, what: string): Figure {
  return {
    name: `ring-wakeup-${at}`,
    about: `from the publication of a fault to a consumer that slept, ${what}`,
    unit: 'ns',
    ours: [script('ring', at)],
    peers: { C: [c('ring', at)], 'event loop': [script('event-loop', at)] },
  };
}

const AT_IOVA = 'AddressSpace.map of a page at an IOVA, Mapping.unmap';

export const FIGURES: readonly Figure[] = [
  translate('translate-hit', 16, '16 pages in random order: the IOTLB hits'),
  translate('translate-1024', 1024, '1,024 pages in random order: the IOTLB hits'),
  translate('translate-65536', 65_536, '65,536 pages in random order: the IOTLB never hits'),
  ioctl('ioctl', 'hot', UNKNOWN, 'with a struct in the call page, on an eventfd, which answers ENOTTY'),
  ioctl('ioctl-batch-16', 'batch', FIOCLEX, '16 in a batch, FIOCLEX of an eventfd'),
  ioctl('ioctl-struct', 'struct', UNKNOWN, 'LinuxKernel.ioctl with a struct in a Uint8Array, likewise'),
  mapUnmap('map-unmap', 'mapping', 1, AT_IOVA),
  mapUnmap('map-unmap', 'mapping', 1000, AT_IOVA),
  mapUnmap('map-unmap', 'mapping', MILLION, AT_IOVA),
  mapUnmap('unmap-range', 'range', 1000, 'AddressSpace.map of a page at an IOVA, unmap of the range'),
  mapUnmap('map-anywhere', 'anywhere', 1000, 'AddressSpace.map of a page where there is room, Mapping.unmap'),
  {
    name: 'map-last-of-1000000',
    about: 'AddressSpace.map of a page where there is room, simulated, edu attached, the last of a million',
    unit: 'ns',
    ours: [script('map-growth', String(MILLION))],
    peers: { 'first 1,000': [script('map-growth', '1008')] },
    mostRuns: 1,
  },
  {
    name: 'open-to-first-dma',
    about: 'from the start of the process to the end of the first DMA, simulated',
    unit: 'ms',
    ours: [script('first-dma', 'dma')],
    peers: {
      'package loaded': [script('first-dma', 'loaded')],
      'Node alone': [script('first-dma', 'nothing')],
    },
  },
  {
    name: 'ring-faults',
    about: 'faults of a producer in C taken from a ring and answered, FaultConsumer.drain(callback)',
    unit: 'ns',
    ours: [script('ring', 'faults')],
    peers: {
      C: [c('ring', 'faults')],
      'fs.read': [script('pipe', 'read')],
      'read stream': [script('pipe', 'stream')],
    },
  },
  ringWakeup('p50', 'median'),
  ringWakeup('p99', '99th percentile'),
  {
    name: 'fault-loop',
    about: 'simulated device touches a page, fault, handler maps it, response, the DMA completes',
    unit: 'ns',
    ours: [script('fault-loop')],
    peers: {
      'sum of parts': [
        script('fault-parts', 'dma'),
        script('fault-parts', 'page-request'),
        script('fault-parts', 'map'),
      ],
    },
  },
  vmMapUnmap('vm-map-unmap', 'calls', 'the two ioctls'),
  vmMapUnmap('vm-map-unmap-objects', 'objects', 'AddressSpace.map, Mapping.unmap'),
  vmMapUnmap('vm-map-unmap-many', 'many', 'AddressSpace.mapMany and unmapMany, 16 at a time'),
  {
    name: 'vm-faults',
    about:
      "in the VM, on Linux: 128 faults of the kernel's mock device taken from a ring and answered, FaultQueue.drain(callback)",
    unit: 'ns',
    ours: [script('vm-faults')],
    // By read(2) and write(2).
    peers: { C: [c('vm-faults')] },
    inVm: true,
  },
];
