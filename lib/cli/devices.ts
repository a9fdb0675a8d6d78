/** `iommufd devices`: the PCI devices, and who has them. */
import { listPciDevices, PCI_DEVICES, target } from '../sysfs';
import { usesOf, type Use } from './bind/uses';
import { EXIT, parseCommand, printJson, reportRefusals, table, type Output } from './command';
import { openSystem, type System } from './system';
import { list } from './text-files';

const usage = `iommufd devices [--json]

Lists the PCI devices: what they are, their drivers, IOMMU groups and IOMMUs, the device files under /dev/vfio/devices
of those that VFIO has, and what each is in use for.

  --json  [{ "bdf", "vendorId", "deviceId", "classCode", "class", "driver", "iommuGroup", "iommu", "path", "uses" }],
          null where there is none

Exit status: 0, 2 bad arguments.
`;

const options = { json: { type: 'boolean' } } as const;

export interface DeviceRow {
  readonly bdf: string;
  readonly vendorId: string;
  readonly deviceId: string;
  /** 24 bits. */
  readonly classCode: string;
  /** For people. */
  readonly class: string;
  readonly driver: string | null;
  readonly iommuGroup: number | null;
  /** The IOMMU in front of it, as in /sys/class/iommu. */
  readonly iommu: string | null;
  /** Its VFIO device file: one that starts with 'noiommu-' is for raw calls only. */
  readonly path: string | null;
  readonly uses: readonly Use[];
}

export function run(args: string[], output: Output): number {
  const parsed = parseCommand({ usage, options, words: [0, 0] }, args, output);
  if (typeof parsed === 'number') return parsed;
  const json = parsed.values.json === true;
  return reportRefusals(json, output, () => {
    const rows = describeDevices(openSystem());
    if (json) printJson(output, rows);
    else output.out(table([HEADS, ...rows.map(cells)]));
    return EXIT.done;
  });
}

const digits = (value: number, count: number) => `0x${value.toString(16).padStart(count, '0')}`;

export function describeDevices({ files }: System): DeviceRow[] {
  return listPciDevices(files).map(({ bdf, vendorId, deviceId, classCode, driver, iommuGroup }) => {
    const [file] = list(files, `${PCI_DEVICES}/${bdf}/vfio-dev`);
    return {
      bdf,
      vendorId: digits(vendorId, 4),
      deviceId: digits(deviceId, 4),
      classCode: digits(classCode, 6),
      class: className(classCode),
      driver: driver ?? null,
      iommuGroup: iommuGroup ?? null,
      iommu: target(files, `${PCI_DEVICES}/${bdf}/iommu`) ?? null,
      path: file === undefined ? null : `/dev/vfio/devices/${file}`,
      uses: usesOf(files, bdf),
    };
  });
}

const HEADS = ['ADDRESS', 'ID', 'CLASS', 'DRIVER', 'GROUP', 'IOMMU', 'FILE', 'IN USE'] as const;

function cells(row: DeviceRow): string[] {
  const { bdf, vendorId, deviceId, driver, iommuGroup, iommu, path, uses } = row;
  return [
    bdf,
    `${vendorId.slice(2)}:${deviceId.slice(2)}`,
    row.class,
    driver ?? '-',
    iommuGroup === null ? '-' : String(iommuGroup),
    iommu ?? '-',
    path ?? '-',
    uses.map(({ says }) => says).join(', '),
  ];
}

/** By base class and subclass, else by base class (PCI Code and ID Assignment Specification). */
const CLASSES: Readonly<Record<string, string>> = {
  '0101': 'IDE',
  '0104': 'RAID',
  '0106': 'SATA',
  '0107': 'SAS',
  '0108': 'NVMe',
  '01': 'storage',
  '02': 'network',
  '03': 'display',
  '04': 'multimedia',
  '05': 'memory',
  '0600': 'host bridge',
  '0601': 'ISA bridge',
  '0604': 'PCI bridge',
  '06': 'bridge',
  '07': 'communication',
  '0806': 'IOMMU',
  '08': 'system',
  '09': 'input',
  '0c03': 'USB',
  '0c05': 'SMBus',
  '0c': 'serial bus',
  '0d': 'wireless',
  '10': 'encryption',
  '11': 'signal processing',
  '12': 'accelerator',
};

function className(code: number): string {
  const text = code.toString(16).padStart(6, '0');
  return CLASSES[text.slice(0, 4)] ?? CLASSES[text.slice(0, 2)] ?? 'other';
}
