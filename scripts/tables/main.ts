// `npm run tables`: dumps a running guest's VT-d tables and holds the model against them; see HELP.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compareDump } from './compare';
import { readDump } from './dump';

const SHOWN = 20;

const HELP = `Usage: npm run tables -- [--dump FILE] [--keep FILE] [--legacy] [--json]

Boots a guest (npm run vm), maps memory for edu there, dumps the VT-d unit's tables while Linux
runs, and walks the dump with the model: it must find what Linux's debugfs lists, and no more.

  --dump FILE  walk this dump instead (npm run vm -- --dump-tables FILE makes one)
  --keep FILE  keep the dump
  --legacy     let Linux use legacy mode instead of scalable mode
  --json       print the result as one JSON object

Exit status: 0 when there is no difference.
`;

/** Status of the guest's run. */
function makeDump(path: string, legacy: boolean): number {
  const vm = join(__dirname, '../vm/main.js');
  const guest = join(__dirname, 'guest.js');
  // A device of Linux's own that does DMA through its own tables, besides the NVMe disk.
  const device = 'virtio-serial-pci,iommu_platform=on,disable-legacy=on';
  const options = [
    '--device',
    device,
    '--dump-tables',
    path,
    ...(legacy ? ['--append', 'intel_iommu=sm_off'] : []),
  ];
  return (
    spawnSync(process.execPath, [vm, ...options, process.execPath, guest], {
      stdio: ['ignore', 'inherit', 'inherit'],
    }).status ?? 1
  );
}

function report(path: string, json: boolean): number {
  const result = compareDump(readDump(path));
  const { differences, ...counts } = result;
  if (json) console.log(JSON.stringify({ ...counts, mismatches: differences.length }));
  else
    console.log(
      `${counts.slots} devices and PASIDs, ${counts.lines} entries listed by Linux; ` +
        `the model translated ${counts.pages} pages and remapped ${counts.interrupts} interrupts ` +
        `(${counts.requests} requests): ` +
        `${differences.length} differences`,
    );
  for (const difference of differences.slice(0, SHOWN)) console.error(difference);
  return differences.length === 0 ? 0 : 1;
}

function main(): number {
  const { values } = parseArgs({
    options: {
      dump: { type: 'string' },
      keep: { type: 'string' },
      legacy: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (values.dump !== undefined) return report(values.dump, values.json);
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-tables-'));
  try {
    const path = values.keep ?? join(folder, 'dump.json');
    return makeDump(path, values.legacy) || report(path, values.json);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = main();
