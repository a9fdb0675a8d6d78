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
}

const script = (name: string, ...args: string[]): Trial => ({ script: name, arguments: args });
const c = (source: string, ...args: string[]): Trial => ({ source, arguments: args });

function translate(name: string, pages: number, about: string): Figure {
  return {
    name,
    about: `VtdUnit.translate, ${about}, four-level first stage`,
    unit: 'ns',
    ours: [script('translate', String(pages))],
    peers: {
      C: [c('translate', String(pages))],
      'naive JS': [script('translate-naive', String(pages))],
    },
  };
}

function mapUnmap(live: number): Figure {
  const own = script('map-unmap', 'api', String(live));
  return {
    name: `map-unmap-${live}`,
    about: `AddressSpace.map and unmap of a page, edu attached, simulated, ${live} mapping(s) live`,
    unit: 'ns',
    ours: [own],
    peers: {
      'raw ioctls': [script('map-unmap', 'ioctl', String(live))],
      ...(live > 1 && { '1 live': [script('map-unmap', 'api', '1')] }),
    },
  };
}

export const FIGURES: readonly Figure[] = [
  translate('translate-hit', 16, '16 pages in random order: the IOTLB hits'),
  translate('translate-1024', 1024, '1,024 pages in random order: the IOTLB hits'),
  translate('translate-65536', 65_536, '65,536 pages in random order: the IOTLB never hits'),
  {
    name: 'ioctl',
    about: 'LinuxKernel.ioctl with a struct, on an eventfd, which answers ENOTTY',
    unit: 'ns',
    ours: [script('ioctl')],
    peers: { C: [c('ioctl')] },
  },
  mapUnmap(1),
  mapUnmap(1000),
  mapUnmap(100_000),
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
];
