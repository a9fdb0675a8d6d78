/** What a device is in use for: what would be lost if its driver let go of it. */
import type { KernelFiles } from '../../kernel';
import { PCI_DEVICES } from '../../sysfs';
import { errno } from '../../uapi/errno';
import { linkedPath, list, readTable, readText, readWord } from '../text-files';

/** One reason to leave a device where it is. */
export interface Use {
  readonly kind: 'mount' | 'swap' | 'disk' | 'network' | 'console' | 'display';
  /** The block device, interface or terminal, such as 'nvme0n1p2'. */
  readonly name: string;
  /** For people: 'nvme0n1p2 is mounted at /'. */
  readonly says: string;
}

const BLOCK = '/sys/class/block';
const NET = '/sys/class/net';
/** open(2): for a block device, only if nothing in the kernel has claimed it (asm-generic/fcntl.h). */
const O_EXCL = 0o200;
const ROUTE = { interface: 0, destination: 1, mask: 7 } as const;
const ROUTE6 = { destination: 0, prefix: 1, interface: 9 } as const;
const NOWHERE6 = '0'.repeat(32);

/** What the device at this PCI address is in use for; empty when nothing that Linux shows depends on it. Only looks. */
export function usesOf(files: KernelFiles, bdf: string): Use[] {
  const folder = linkedPath(files, `${PCI_DEVICES}/${bdf}`);
  if (folder === undefined) return [];
  const isOurs = (path: string | undefined) => path?.startsWith(`${folder}/`) === true;
  const interfaces = list(files, NET).filter((name) => isOurs(linkedPath(files, `${NET}/${name}`)));
  return [
    ...blockUses(files, disksOf(files, isOurs)),
    ...tagUses(files, isOurs),
    ...networkUses(files, interfaces),
    ...consoleUses(files, isOurs),
    ...displayUses(files, bdf),
  ];
}

/**
 * Disks of the device that something has claimed which `usesOf` does not see: a pool of ZFS, a mount of another
 * namespace, a program. Tries to open them, which is no business of commands that only look: for that moment, nobody else
 * can claim them. It takes root.
 */
export function claimsOf(files: KernelFiles, bdf: string): Use[] {
  const folder = linkedPath(files, `${PCI_DEVICES}/${bdf}`);
  if (folder === undefined) return [];
  return disksOf(files, (path) => path?.startsWith(`${folder}/`) === true)
    .filter((name) => isClaimed(files, name))
    .map((name) => ({ kind: 'disk', name, says: `something has claimed ${name} for itself` }));
}

type IsOurs = (path: string | undefined) => boolean;

/** Disks, and their partitions. Those of an NVMe subsystem may hang from that, and not from its controllers. */
function disksOf(files: KernelFiles, isOurs: IsOurs): string[] {
  return list(files, BLOCK).filter((name) => {
    const place = linkedPath(files, `${BLOCK}/${name}`);
    const subsystem = /^.*\/nvme-subsys\d+(?=\/)/.exec(place ?? '')?.[0];
    if (subsystem === undefined) return isOurs(place);
    return list(files, subsystem).some((entry) => isOurs(linkedPath(files, `${subsystem}/${entry}`)));
  });
}

/** The disks and whatever is made of them: partitions are among them, volumes and arrays hold them. */
function withHolders(files: KernelFiles, disks: readonly string[]): Set<string> {
  const all = new Set(disks);
  for (const name of all) for (const holder of list(files, `${BLOCK}/${name}/holders`)) all.add(holder);
  return all;
}

function blockUses(files: KernelFiles, disks: readonly string[]): Use[] {
  if (disks.length === 0) return [];
  const all = [...withHolders(files, disks)];
  return [...mounts(files, all), ...swaps(files, all), ...btrfs(files, all)];
}

interface Mount {
  readonly number: string;
  readonly place: string;
  readonly type: string;
  readonly source: string;
}

/** The lines of /proc/self/mountinfo (Documentation/filesystems/proc.rst, 3.5). */
function readMounts(files: KernelFiles): Mount[] {
  return readTable(files, '/proc/self/mountinfo').flatMap((words) => {
    const end = words.indexOf('-');
    if (end < 0 || words.length < end + 3) return [];
    return [
      { number: words[2], place: plain(words[4]), type: words[end + 1], source: plain(words[end + 2]) },
    ];
  });
}

/** Without the octal escapes of blanks. */
function plain(word: string): string {
  return word.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

function mounts(files: KernelFiles, names: readonly string[]): Use[] {
  const numbers = new Map(names.map((name) => [readWord(files, `${BLOCK}/${name}/dev`), name]));
  const found = new Map<string, Use>();
  for (const { number, source, place } of readMounts(files)) {
    const named = names.includes(blockName(source)) ? blockName(source) : undefined;
    const name = numbers.get(number) ?? named;
    if (name !== undefined && !found.has(place))
      found.set(place, { kind: 'mount', name, says: `${name} is mounted at ${place}` });
  }
  return [...found.values()];
}

/** The name in sysfs of a file in /dev: 'cciss!c0d0' of /dev/cciss/c0d0. */
function blockName(path: string): string {
  return path.startsWith('/dev/') ? path.slice('/dev/'.length).replaceAll('/', '!') : '';
}

function swaps(files: KernelFiles, names: readonly string[]): Use[] {
  return readTable(files, '/proc/swaps', 1).flatMap(([path]) => {
    const name = blockName(path);
    return names.includes(name) ? [{ kind: 'swap', name, says: `${name} is swap space` }] : [];
  });
}

/** A file system on several disks has one of them in the list of mounts. */
function btrfs(files: KernelFiles, names: readonly string[]): Use[] {
  return list(files, '/sys/fs/btrfs').flatMap((id) =>
    list(files, `/sys/fs/btrfs/${id}/devices`)
      .filter((name) => names.includes(name))
      .map((name): Use => ({
        kind: 'mount',
        name,
        says: `${name} is a part of the btrfs file system ${id}`,
      })),
  );
}

/** Whether something in the kernel, or a program, has a disk for itself alone. */
function isClaimed(files: KernelFiles, name: string): boolean {
  const fd = files.open(`/dev/${name.replaceAll('!', '/')}`, O_EXCL);
  if (fd >= 0) files.close(fd);
  return fd === -errno.EBUSY;
}

/** File systems that the host of a virtual machine shares under a tag. */
function tagUses(files: KernelFiles, isOurs: IsOurs): Use[] {
  const driver = '/sys/bus/virtio/drivers/9pnet_virtio';
  const tags = list(files, driver)
    .filter((name) => isOurs(linkedPath(files, `${driver}/${name}`)))
    .map((name) => readWord(files, `${driver}/${name}/mount_tag`));
  return readMounts(files)
    .filter(({ type, source }) => type === '9p' && tags.includes(source))
    .map(({ source, place }) => ({
      kind: 'mount',
      name: source,
      says: `the host's share '${source}' is mounted at ${place}`,
    }));
}

/** The interfaces, and the bridges, bonds and virtual networks made of them. */
function withUppers(files: KernelFiles, interfaces: readonly string[]): Set<string> {
  const all = new Set(interfaces);
  for (const name of all)
    for (const entry of list(files, `${NET}/${name}`))
      if (entry.startsWith('upper_')) all.add(entry.slice('upper_'.length));
  return all;
}

function networkUses(files: KernelFiles, interfaces: readonly string[]): Use[] {
  if (interfaces.length === 0) return [];
  const all = withUppers(files, interfaces);
  const uses = new Map<string, Use>();
  const add = (name: string, what: string) => {
    if (all.has(name) && !uses.has(name))
      uses.set(name, { kind: 'network', name, says: `${name} has ${what}` });
  };
  const routes = readTable(files, '/proc/net/route', 1);
  const isDefault = (row: string[]) => /^0+$/.test(row[ROUTE.destination]) && /^0+$/.test(row[ROUTE.mask]);
  for (const row of routes.filter(isDefault)) add(row[ROUTE.interface], 'the default route');
  for (const row of readTable(files, '/proc/net/ipv6_route'))
    if (row[ROUTE6.destination] === NOWHERE6 && row[ROUTE6.prefix] === '00')
      add(row[ROUTE6.interface], 'the default route');
  for (const row of routes) add(row[ROUTE.interface], 'routes');
  return [...uses.values()];
}

function consoleUses(files: KernelFiles, isOurs: IsOurs): Use[] {
  const active = (readText(files, '/sys/class/tty/console/active') ?? '').trim().split(/\s+/);
  return active
    .filter((name) => name !== '' && isOurs(linkedPath(files, `/sys/class/tty/${name}`)))
    .map((name) => ({ kind: 'console', name, says: `${name} is the system's console` }));
}

function displayUses(files: KernelFiles, bdf: string): Use[] {
  if (readWord(files, `${PCI_DEVICES}/${bdf}/boot_vga`) !== '1') return [];
  return [{ kind: 'display', name: bdf, says: `${bdf} is the display the machine started with` }];
}
