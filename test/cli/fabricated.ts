/** A made-up system, for tests of commands that look at one: a tree of files, and what opening them says. */
import { gzipSync } from 'node:zlib';
import type { KernelFiles } from '../../lib/kernel';
import type { System } from '../../lib/cli/system';
import { errno } from '../../lib/uapi';
import { directory, FileTree, link, type Node } from '../../lib/sim/kernel/file-tree';

/** Text of files by their paths; `-> target` is a link. */
export type Files = Record<string, string>;

type Folder = { [name: string]: Folder | string };

function nest(files: Files): Folder {
  const root: Folder = {};
  for (const [path, text] of Object.entries(files)) {
    const names = path.split('/').filter(Boolean);
    const last = names.pop()!;
    let folder = root;
    for (const name of names) folder = (folder[name] ??= {}) as Folder;
    folder[last] = text;
  }
  return root;
}

function nodeOf(entry: Folder | string): Node {
  if (typeof entry === 'string') {
    return entry.startsWith('-> ') ? link(entry.slice(3)) : { kind: 'file', read: () => entry };
  }
  const entries = Object.entries(entry).map(([name, one]) => [name, nodeOf(one)] as const);
  return directory(() => Object.fromEntries(entries));
}

export class FabricatedFiles implements KernelFiles {
  readonly #tree: FileTree;
  readonly #open = new Map<number, Buffer>();
  #next = 3;

  constructor(
    files: Files,
    /** What each file opens as: bytes, or -errno; all others do not exist. */
    readonly opens: Record<string, Buffer | number> = {},
  ) {
    this.#tree = new FileTree(nodeOf(nest(files)) as ReturnType<typeof directory>);
  }

  open(path: string): number {
    const content = this.opens[path] ?? -errno.ENOENT;
    if (typeof content === 'number') return content;
    this.#open.set(this.#next, content);
    return this.#next++;
  }
  close(fd: number): number {
    return this.#open.delete(fd) ? 0 : -errno.EBADF;
  }
  read(fd: number, bytes: Uint8Array): number {
    const content = this.#open.get(fd);
    if (content === undefined) return -errno.EBADF;
    this.#open.set(fd, content.subarray(bytes.length));
    return content.copy(bytes);
  }
  readdir(path: string): string[] | number {
    return this.#tree.readdir(path);
  }
  readFile(path: string): string | number {
    return this.#tree.readFile(path);
  }
  writeFile(path: string, text: string): number {
    return this.#tree.writeFile(path, text);
  }
  readlink(path: string): string | number {
    return this.#tree.readlink(path);
  }
  /** Files that were not closed. */
  get leaked(): number {
    return this.#open.size;
  }
}

export function systemOf(files: KernelFiles, changes: Partial<System> = {}): System {
  return {
    files,
    simulated: false,
    platform: 'linux',
    user: 'ada',
    addonProblem: () => undefined,
    ...changes,
  };
}

/** A file of a kernel's options, as /proc/config.gz opens. */
export function configuration(options: Record<string, 'y' | 'm'>): Buffer {
  const lines = Object.entries(options).map(([name, value]) => `CONFIG_${name}=${value}\n`);
  return gzipSync(`# a comment\n${lines.join('')}# CONFIG_NOTHING is not set\n`);
}

interface Pci {
  readonly driver?: string;
  readonly group?: number;
  readonly file?: string;
  readonly class?: string;
}

/** A PCI device on the root bus. */
export function pciDevice(bdf: string, { driver, group, file, class: code = '0xff0000' }: Pci = {}): Files {
  const folder = `/sys/devices/pci0000:00/${bdf}`;
  const links: Files = { [`/sys/bus/pci/devices/${bdf}`]: `-> ../../../devices/pci0000:00/${bdf}` };
  if (driver !== undefined) links[`${folder}/driver`] = `-> ../../../bus/pci/drivers/${driver}`;
  if (group !== undefined) {
    links[`${folder}/iommu_group`] = `-> ../../../kernel/iommu_groups/${group}`;
    links[`/sys/kernel/iommu_groups/${group}/devices/${bdf}`] = `-> ../../../../devices/pci0000:00/${bdf}`;
    links[`${folder}/iommu`] = '-> ../../virtual/iommu/dmar0';
  }
  if (file !== undefined) links[`${folder}/vfio-dev/${file}/dev`] = '511:0\n';
  return {
    [`${folder}/vendor`]: '0x8086\n',
    [`${folder}/device`]: '0x1234\n',
    [`${folder}/class`]: `${code}\n`,
    ...links,
  };
}

/** A machine on which programs can have 0000:00:04.0. */
export function goodMachine(): { files: Files; opens: Record<string, Buffer | number> } {
  return {
    files: {
      '/proc/sys/kernel/osrelease': '6.12.9-amd64\n',
      '/proc/cmdline': 'root=/dev/nvme0n1p2 ro intel_iommu=on quiet\n',
      '/proc/cpuinfo': 'vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n',
      '/proc/interrupts':
        '   CPU0\n 2:  0  IR-IO-APIC    2-edge   timer\n24:  0  DMAR-MSI    0-edge  dmar0\n',
      '/proc/devices': 'Character devices:\n 10 misc\n511 vfio-dev\n',
      '/proc/self/limits':
        'Limit  Soft Limit  Hard Limit  Units\nMax locked memory   unlimited  unlimited  bytes\n',
      '/proc/self/status': 'CapEff:\t0000000000000000\n',
      '/sys/class/iommu/dmar0': '-> ../../devices/virtual/iommu/dmar0',
      '/sys/class/misc/iommu/dev': '10:127\n',
      '/sys/firmware/acpi/tables/DMAR': '',
      '/sys/bus/pci/drivers/vfio-pci/bind': '',
      '/sys/module/iommufd/parameters/allow_unsafe_interrupts': 'N\n',
      ...pciDevice('0000:00:04.0', { driver: 'vfio-pci', group: 3, file: 'vfio0' }),
    },
    opens: {
      '/dev/iommu': Buffer.alloc(0),
      '/dev/vfio/devices/vfio0': Buffer.alloc(0),
      '/proc/config.gz': configuration({
        ...{ IOMMUFD: 'm', VFIO: 'm', VFIO_PCI: 'm', VFIO_DEVICE_CDEV: 'y' },
        ...{ INTEL_IOMMU: 'y', IRQ_REMAP: 'y' },
      }),
    },
  };
}
