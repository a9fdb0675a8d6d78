/** What `iommufd doctor` looks at: everything is read here, and judged in checks.ts. */
import { gunzipSync } from 'node:zlib';
import { O_CLOEXEC, O_RDONLY, O_RDWR, type KernelFiles } from '../../kernel';
import { findPciDevice, listPciDevices, type PciDescription } from '../../sysfs';
import { othersInTheWay } from '../bind/group';
import { findHolders, holdersOf, type Holder } from '../bind/holders';
import { usesOf, type Use } from '../bind/uses';
import type { System } from '../system';
import { list, readTable, readText, readWord } from '../text-files';

/** A device that the doctor looks at. */
export interface DeviceFacts {
  readonly description: PciDescription;
  /** Opening its VFIO device file: 0 or -errno; undefined when it has none. */
  readonly opened: number | undefined;
  /** Devices of its IOMMU group whose drivers keep Linux from giving it away. */
  readonly inTheWay: readonly PciDescription[];
  readonly uses: readonly Use[];
  /** Programs that have it open, of those that may be looked into. */
  readonly holders: readonly Holder[];
}

export interface Facts {
  readonly platform: string;
  readonly simulated: boolean;
  readonly user: string;
  /** As `uname -r`. */
  readonly release: string | undefined;
  readonly parameters: readonly string[];
  /** Options of the kernel that are on, without CONFIG_; undefined when it does not say. */
  readonly options: ReadonlyMap<string, 'y' | 'm'> | undefined;
  readonly processor: { readonly vendor: 'intel' | 'amd' | 'arm' | undefined; readonly virtual: boolean };
  /** Names of IOMMUs in sysfs: 'dmar0'. */
  readonly iommus: readonly string[];
  readonly groups: number;
  /** The firmware's table of IOMMUs, such as 'DMAR'; undefined when there is none, or tables cannot be listed. */
  readonly firmwareTable: string | undefined;
  /** Opening /dev/iommu: 0 or -errno; and its device number, 'major:minor', where the kernel has iommufd. */
  readonly iommufd: { readonly opened: number; readonly number: string | undefined };
  readonly vfio: {
    /** Whether VFIO has device files of its own; undefined when Linux does not say. */
    readonly deviceFiles: boolean | undefined;
    /** Whether the driver vfio-pci is there. */
    readonly driver: boolean;
  };
  readonly interrupts: {
    /** Whether interrupts are remapped; undefined when Linux does not say. */
    readonly remapped: boolean | undefined;
    /** Whether iommufd was told to go on without. */
    readonly unsafeAllowed: boolean;
  };
  /** Those asked for, else those with a VFIO driver. */
  readonly devices: readonly DeviceFacts[];
  readonly asked: boolean;
  /** Bytes that may be locked; whether the limit counts for this user. */
  readonly memlock: { readonly bytes: number | undefined; readonly exempt: boolean };
  /** Why the addon cannot be had. */
  readonly addon: string | undefined;
}

/** Reads everything. `asked` are PCI addresses. Throws IommuError ENODEV for one that does not exist, TypeError for none. */
export function gatherFacts(system: System, asked: readonly string[]): Facts {
  const { files, platform, simulated, user } = system;
  const release = readWord(files, '/proc/sys/kernel/osrelease');
  const all = listPciDevices(files);
  // By address: one that was named twice is looked at once.
  const named = new Map(asked.map((name) => findPciDevice(files, name)).map((one) => [one.bdf, one]));
  const wanted = asked.length > 0 ? [...named.values()] : all.filter((one) => one.path);
  return {
    platform,
    simulated,
    user,
    release,
    parameters: (readWord(files, '/proc/cmdline') ?? '').split(/\s+/),
    options: readOptions(files, release),
    processor: readProcessor(files),
    // The kernel's selftest has one that no device is behind.
    iommus: list(files, '/sys/class/iommu').filter((name) => !name.startsWith('iommufd_selftest')),
    groups: list(files, '/sys/kernel/iommu_groups').length,
    firmwareTable: list(files, '/sys/firmware/acpi/tables').find((name) => FIRMWARE_TABLES.includes(name)),
    iommufd: { opened: tryOpen(files, '/dev/iommu'), number: readWord(files, '/sys/class/misc/iommu/dev') },
    vfio: {
      deviceFiles: hasDeviceFiles(files, all),
      driver: list(files, '/sys/bus/pci/drivers').includes('vfio-pci'),
    },
    interrupts: {
      remapped: areRemapped(readText(files, '/proc/interrupts')),
      unsafeAllowed: readWord(files, '/sys/module/iommufd/parameters/allow_unsafe_interrupts') === 'Y',
    },
    devices: readDevices(files, wanted),
    asked: asked.length > 0,
    memlock: readMemlock(files),
    addon: system.addonProblem(),
  };
}

function readDevices(files: KernelFiles, wanted: readonly PciDescription[]): DeviceFacts[] {
  const holders = wanted.some(({ path }) => path) ? findHolders(files) : new Map<string, Holder[]>();
  return wanted.map((description) => ({
    description,
    opened: description.path === undefined ? undefined : tryOpen(files, description.path),
    inTheWay: othersInTheWay(files, description),
    uses: description.path === undefined ? usesOf(files, description.bdf) : [],
    holders: holdersOf(holders, description),
  }));
}

/** ACPI tables that describe IOMMUs: Intel's, AMD's, Arm's, virtual ones. */
const FIRMWARE_TABLES = ['DMAR', 'IVRS', 'IORT', 'VIOT'];

/** 0 or -errno. Opening alone changes nothing of an iommufd or a VFIO device. */
function tryOpen(files: KernelFiles, path: string): number {
  const fd = files.open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return fd;
  files.close(fd);
  return 0;
}

function readOptions(
  files: KernelFiles,
  release: string | undefined,
): ReadonlyMap<string, 'y' | 'm'> | undefined {
  const text =
    readCompressed(files, '/proc/config.gz') ??
    readText(files, `/boot/config-${release}`) ??
    readText(files, `/lib/modules/${release}/config`);
  if (text === undefined) return undefined;
  const options = [...text.matchAll(/^CONFIG_(\w+)=([ym])$/gm)];
  return new Map(options.map(([, name, value]) => [name, value === 'm' ? 'm' : 'y']));
}

const CHUNK = 1 << 16;

function readCompressed(files: KernelFiles, path: string): string | undefined {
  const fd = files.open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return undefined;
  const chunks: Uint8Array[] = [];
  for (;;) {
    const bytes = new Uint8Array(CHUNK);
    const count = files.read(fd, bytes);
    if (count <= 0) break;
    chunks.push(bytes.subarray(0, count));
  }
  files.close(fd);
  return gunzipSync(Buffer.concat(chunks)).toString('latin1');
}

function readProcessor(files: KernelFiles): Facts['processor'] {
  const text = readText(files, '/proc/cpuinfo') ?? '';
  if (/^CPU implementer\s*:/m.test(text)) return { vendor: 'arm', virtual: isQemu(files) };
  const vendor = /^vendor_id\s*:\s*(\w+)/m.exec(text)?.[1];
  const names = { GenuineIntel: 'intel', AuthenticAMD: 'amd', HygonGenuine: 'amd' } as const;
  return {
    vendor: vendor !== undefined && vendor in names ? names[vendor as keyof typeof names] : undefined,
    virtual: /^flags\s*:.*\bhypervisor\b/m.test(text),
  };
}

/** Arm's processors do not say that they are virtual; QEMU's machine 'virt' does, by ACPI or by device tree. */
function isQemu(files: KernelFiles): boolean {
  return (
    readWord(files, '/sys/class/dmi/id/sys_vendor') === 'QEMU' ||
    readText(files, '/proc/device-tree/compatible')?.startsWith('linux,dummy-virt') === true
  );
}

/** VFIO's device files have a range of device numbers, from the start; some device may have one too. */
function hasDeviceFiles(files: KernelFiles, devices: readonly PciDescription[]): boolean | undefined {
  if (devices.some(({ path }) => path !== undefined)) return true;
  const numbers = readText(files, '/proc/devices');
  return numbers === undefined ? undefined : /^ *\d+ vfio-dev$/m.test(numbers);
}

/**
 * By the interrupt controllers' names: Linux puts 'IR-' before those of x86 that are remapped; of Arm's, an ITS keeps the
 * interrupts of devices apart, and a GICv2m does not.
 */
export function areRemapped(interrupts: string | undefined): boolean | undefined {
  if (interrupts === undefined) return undefined;
  if (/\s(IR-(IO-APIC|PCI-MSI)|ITS-)/.test(interrupts)) return true;
  return /\s(IO-APIC|PCI-MSI|GICv2m-)/.test(interrupts) ? false : undefined;
}

/** CAP_IPC_LOCK (linux/capability.h). */
const IPC_LOCK = 14n;

function readMemlock(files: KernelFiles): Facts['memlock'] {
  const limit = /^Max locked memory\s+(\S+)/m.exec(readText(files, '/proc/self/limits') ?? '')?.[1];
  const status = readTable(files, '/proc/self/status').find(([name]) => name === 'CapEff:');
  const capabilities = status === undefined ? 0n : BigInt(`0x${status[1]}`);
  return {
    bytes: limit === undefined ? undefined : limit === 'unlimited' ? Infinity : Number(limit),
    exempt: ((capabilities >> IPC_LOCK) & 1n) === 1n,
  };
}
