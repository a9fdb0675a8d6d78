/**
 * `npm run nvme -- [options]`: puts an NVMe disk under stress, and overwrites what it has. On a simulated controller, or with
 * IOMMUFD_BACKEND=linux on a real one: `npm run vm -- --nvme npm run -s nvme -- --bytes 64M`.
 */
import { parseArgs } from 'node:util';
import { Iommu } from 'iommufd';
import { Machine, MemoryStorage, NvmeController } from 'iommufd/sim';
import { NvmeDriver } from './driver';
import { stress } from './stress';

const HELP = `Usage: npm run nvme -- [options]

Writes seeded data to an NVMe disk in random pieces, flushes, reads it back in others and
compares. WHAT THE DISK HAS IS LOST. The disk is simulated unless IOMMUFD_BACKEND is linux.

  --bytes SIZE     bytes to write and to read back (default 64M)
  --seed N         the same seed gives the same data in the same pieces (default 1)
  --device BDF     PCI address, of a device that vfio-pci has (default 0000:00:05.0)
  --disk SIZE      size of the simulated disk (default 256M); a smaller one is written repeatedly
  --queues N       I/O queue pairs (default 4)
  --depth N        requests in flight at most (default 64)
  --polling        look for completions instead of waiting for interrupts
  --protect        give the simulated disk end-to-end data protection; a real one has it or not
  --corrupt P      of the simulated disk: one bit of a DMA access is wrong with this probability,
                   0 (default) to 1; without --protect, that is data which nobody notices
`;

const UNITS: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

function size(text: string): number {
  const [, digits, unit] = /^(\d+)([KMG]?)$/.exec(text) ?? [];
  const value = Number(digits) * (unit ? UNITS[unit] : 1);
  if (!(value > 0)) throw new RangeError(`a size is a number with K, M or G, not '${text}'`);
  return value;
}

function count(name: string, text: string, least: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value < 2 ** 32))
    throw new RangeError(`--${name} is a whole number from ${least} on, not '${text}'`);
  return value;
}

/** Says how far it is, now and then. */
function reporter(total: number) {
  let said = 0;
  const percent = (bytes: number) => Math.floor((100 * bytes) / total);
  return (written: number, verified: number) => {
    const now = percent((written + verified) / 2);
    if (now < said + 5) return;
    said = now;
    console.error(`${now} %: ${written >> 20} MiB written, ${verified >> 20} MiB verified`);
  };
}

function simulated(values: { device: string; disk: string; protect: boolean }): Machine {
  const storage = new MemoryStorage(size(values.disk));
  const namespace = values.protect ? { storage, protection: 1 as const } : { storage };
  return new Machine({ devices: { [values.device]: new NvmeController({ namespaces: [namespace] }) } });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      bytes: { type: 'string', default: '64M' },
      seed: { type: 'string', default: '1' },
      device: { type: 'string', default: '0000:00:05.0' },
      disk: { type: 'string', default: '256M' },
      queues: { type: 'string', default: '4' },
      depth: { type: 'string', default: '64' },
      polling: { type: 'boolean', default: false },
      protect: { type: 'boolean', default: false },
      corrupt: { type: 'string', default: '0' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(HELP);
  const [bytes, seed] = [size(values.bytes), count('seed', values.seed, 0)];
  const [depth, queues] = [count('depth', values.depth, 1), count('queues', values.queues, 1)];
  const real = process.env['IOMMUFD_BACKEND'] === 'linux';
  const machine = real ? undefined : simulated(values);
  using iommu = Iommu.open({ backend: machine ?? 'linux' });
  const { polling } = values;
  const disk = await NvmeDriver.open(iommu, values.device, { queues, polling });
  machine?.injectFaults(values.device, { seed, corruptData: Number(values.corrupt) });
  console.log(
    `${disk.model}: ${disk.blocks} blocks of ${disk.blockSize} bytes, protection type ${disk.protection}, seed ${seed}`,
  );
  const start = performance.now();
  try {
    const report = await stress(disk, { bytes, seed, depth, progress: reporter(bytes) });
    const seconds = (performance.now() - start) / 1000;
    console.log(
      `${report.verified} bytes verified in ${report.requests} requests, ${report.flushes} flushes, ` +
        `${seconds.toFixed(1)} s: ${(report.verified / seconds / 2 ** 20).toFixed(1)} MiB/s each way`,
    );
  } finally {
    console.log(disk.counters);
    await disk.close();
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
