// Runs in the guest: maps memory for edu in every way that makes different tables, and asks for the dump.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { Iommu } from 'iommufd';

const PAGE = 4096;
const HUGE = 2 ** 21;
const HUGE_PAGES = 4;
const MEBIBYTE = 2n ** 20n;
const GIBIBYTE = 2n ** 30n;

function mapEverything(iommu: Iommu): void {
  const space = iommu.createAddressSpace();
  iommu.bind('0000:00:04.0', { cookie: 1n }).attach(space);
  const map = (iova: bigint, pages: number, access = {}) =>
    space.map(iommu.allocateDma(pages * PAGE), { iova, ...access });
  map(0n, 1);
  map(0x10000n, 20);
  // Across the borders of a last table, and of a gibibyte.
  map(2n * MEBIBYTE - 3n * BigInt(PAGE), 7, { write: false });
  map(GIBIBYTE - BigInt(PAGE), 2, { read: false });
  map(0x1f_ffff_f000n, 1);
  const last = space.iovaRanges().at(-1)!;
  map(last.iova + last.length - 5n * BigInt(PAGE), 5);
  // Large pages, and the small ones that are left of a large page where the mapping does not start at one.
  const huge = iommu.allocateDma(HUGE_PAGES * HUGE, { hugePages: true });
  space.map(huge, { iova: 5n * GIBIBYTE, length: 2 * HUGE });
  space.map(huge, { iova: 6n * GIBIBYTE + BigInt(HUGE - 2 * PAGE), offset: HUGE - 2 * PAGE, length: HUGE });
}

function main(): number {
  const program = process.env.IOMMUFD_VM_DUMP_TABLES;
  if (program === undefined) throw new Error('this runs in `npm run vm -- --dump-tables FILE`');
  writeFileSync('/proc/sys/vm/nr_hugepages', String(2 * HUGE_PAGES));
  const iommu = Iommu.open({ backend: 'linux' });
  mapEverything(iommu);
  const { status } = spawnSync(program, { stdio: 'inherit' });
  iommu.close();
  return status ?? 1;
}

process.exitCode = main();
