import { findHolders, holdersOf } from '../../lib/cli/bind/holders';
import { claimsOf, usesOf } from '../../lib/cli/bind/uses';
import { errno } from '../../lib/uapi';
import { FabricatedFiles, pciDevice, type Files } from './fabricated';

const BDF = '0000:00:05.0';
const FOLDER = `pci0000:00/${BDF}`;
const OTHER = '0000:00:06.0';

/** A disk of the device: its name and device number. */
function disk(name: string, number: string, place = `${FOLDER}/nvme/nvme0/${name}`): Files {
  return {
    [`/sys/class/block/${name}`]: `-> ../../devices/${place}`,
    [`/sys/devices/${place}/dev`]: `${number}\n`,
  };
}

function network(name: string, place = `${FOLDER}/net/${name}`, uppers: string[] = []): Files {
  return {
    [`/sys/class/net/${name}`]: `-> ../../devices/${place}`,
    [`/sys/devices/${place}/flags`]: '0x1003\n',
    ...Object.fromEntries(uppers.map((upper) => [`/sys/devices/${place}/upper_${upper}`, `-> ../${upper}`])),
  };
}

const mountinfo = (...lines: string[]): Files => ({
  '/proc/self/mountinfo': lines
    .map((line, at) => {
      const [number, place, type, source] = line.split(' ');
      return `${at + 20} 1 ${number} / ${place} rw,relatime shared:1 - ${type} ${source} rw\n`;
    })
    .join(''),
});

const ROUTES = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n';
const route = (name: string, destination: string, mask: string) =>
  `${name}\t${destination}\t0101A8C0\t0003\t0\t0\t0\t${mask}\t0\t0\t0\n`;

function says(files: Files, opens: Record<string, Buffer | number> = {}): string[] {
  const all = { ...pciDevice(BDF, { driver: 'nvme' }), ...pciDevice(OTHER), ...files };
  const made = new FabricatedFiles(all, opens);
  expect(usesOf(made, OTHER)).toEqual([]);
  return usesOf(made, BDF).map((use) => use.says);
}

describe('a device is in use', () => {
  test('for file systems on its disks and their partitions, by number and by name', () => {
    const disks = {
      ...disk('nvme0n1', '259:0'),
      ...disk('nvme0n1p2', '259:2', `${FOLDER}/nvme/nvme0/nvme0n1/nvme0n1p2`),
    };
    expect(says(disks)).toEqual([]);
    const root = mountinfo(
      '259:2 / ext4 /dev/root',
      '0:5 /proc proc proc',
      '259:2 /snap\\040it ext4 /dev/root',
    );
    expect(says({ ...disks, ...root })).toEqual([
      'nvme0n1p2 is mounted at /',
      'nvme0n1p2 is mounted at /snap it',
    ]);
    // btrfs makes numbers of its own.
    expect(says({ ...disks, ...mountinfo('0:33 /home btrfs /dev/nvme0n1p2') })).toEqual([
      'nvme0n1p2 is mounted at /home',
    ]);
    expect(says({ ...disks, ...mountinfo('8:2 / ext4 /dev/sda2') })).toEqual([]);
  });

  test('for what is made of its disks: volumes, arrays', () => {
    const layers = {
      ...disk('nvme0n1', '259:0'),
      [`/sys/devices/${FOLDER}/nvme/nvme0/nvme0n1/holders/md0`]: '-> ../x',
      ...disk('md0', '9:0', 'virtual/block/md0'),
      '/sys/devices/virtual/block/md0/holders/dm-1': '-> ../x',
      ...disk('dm-1', '253:1', 'virtual/block/dm-1'),
    };
    expect(says({ ...layers, ...mountinfo('253:1 / xfs /dev/mapper/vg-root') })).toEqual([
      'dm-1 is mounted at /',
    ]);
  });

  test('for disks of an NVMe subsystem that it is a controller of', () => {
    const subsystem = 'virtual/nvme-subsystem/nvme-subsys0';
    const files = {
      ...disk('nvme0n1', '259:0', `${subsystem}/nvme0n1`),
      [`/sys/devices/${subsystem}/nvme0`]: `-> ../../../${FOLDER}/nvme/nvme0`,
      [`/sys/devices/${FOLDER}/nvme/nvme0/state`]: 'live\n',
      ...mountinfo('259:0 / ext4 /dev/nvme0n1'),
    };
    expect(says(files)).toEqual(['nvme0n1 is mounted at /']);
  });

  test('for swap space, and file systems on several disks', () => {
    const one = disk('nvme0n1', '259:0');
    const swaps = {
      '/proc/swaps': 'Filename Type Size Used Priority\n/dev/nvme0n1 partition 1048572 0 -2\n',
    };
    expect(says({ ...one, ...swaps })).toEqual(['nvme0n1 is swap space']);
    const many = { '/sys/fs/btrfs/1-2-3/devices/nvme0n1': '-> ../x', '/sys/fs/btrfs/features/raid56': '0\n' };
    expect(says({ ...one, ...many })).toEqual(['nvme0n1 is a part of the btrfs file system 1-2-3']);
  });

  test('for the share of the host that is the root of a virtual machine', () => {
    const driver = '/sys/bus/virtio/drivers/9pnet_virtio';
    const files = {
      [`${driver}/virtio1`]: `-> ../../../../devices/${FOLDER}/virtio1`,
      [`/sys/devices/${FOLDER}/virtio1/mount_tag`]: 'root\0',
    };
    expect(says({ ...files, ...mountinfo('0:19 / 9p root') })).toEqual([
      "the host's share 'root' is mounted at /",
    ]);
    expect(says({ ...files, ...mountinfo('0:19 / 9p other', '0:20 /x ext4 root') })).toEqual([]);
  });

  test('for the default route and others, of both protocols', () => {
    const up = (text: string) => ({ ...network('eth0'), '/proc/net/route': ROUTES + text });
    expect(says(up(''))).toEqual([]);
    expect(says(up(route('eth0', '00000000', '00000000') + route('eth0', '0001A8C0', '00FFFFFF')))).toEqual([
      'eth0 has the default route',
    ]);
    expect(says(up(route('eth0', '0001A8C0', '00FFFFFF')))).toEqual(['eth0 has routes']);
    expect(says(up(route('wlan0', '00000000', '00000000')))).toEqual([]);
    const zero = '0'.repeat(32);
    const six = (name: string, prefix: string) => ({
      ...network('eth0'),
      '/proc/net/ipv6_route': `${zero} ${prefix} ${zero} 00 fe80${zero.slice(4)} 00000400 1 0 00000003 ${name.padStart(8)}\n`,
    });
    expect(says(six('eth0', '00'))).toEqual(['eth0 has the default route']);
    expect(says(six('lo', '00'))).toEqual([]);
  });

  test('for routes of a bridge that it is a port of', () => {
    const files = {
      ...network('eth0', undefined, ['br0']),
      ...network('br0', 'virtual/net/br0'),
      '/proc/net/route': ROUTES + route('br0', '00000000', '00000000'),
    };
    expect(says(files)).toEqual(['br0 has the default route']);
  });

  test('for the console and the display', () => {
    const serial = {
      '/sys/class/tty/console/active': 'tty0 ttyS4\n',
      '/sys/class/tty/ttyS4': `-> ../../devices/${FOLDER}/tty/ttyS4`,
      [`/sys/devices/${FOLDER}/tty/ttyS4/dev`]: '4:68\n',
    };
    expect(says(serial)).toEqual(["ttyS4 is the system's console"]);
    expect(says({ [`/sys/devices/${FOLDER}/boot_vga`]: '1\n' })).toEqual([
      `${BDF} is the display the machine started with`,
    ]);
    expect(says({ [`/sys/devices/${FOLDER}/boot_vga`]: '0\n' })).toEqual([]);
  });

  test('of a device whose address starts another: no confusion', () => {
    const files = new FabricatedFiles({
      ...pciDevice('0000:00:05.0'),
      ...pciDevice('0000:00:05.01'),
      ...disk('sda', '8:0', 'pci0000:00/0000:00:05.01/sda'),
      ...mountinfo('8:0 / ext4 /dev/sda'),
    });
    expect(usesOf(files, '0000:00:05.0')).toEqual([]);
  });
});

describe('a disk that something has for itself', () => {
  const files = {
    ...pciDevice(BDF),
    ...disk('cciss!c0d0', '104:0'),
    ...disk('sdb', '8:16', 'pci0000:00/x/sdb'),
  };

  test('is found by opening it, and left closed', () => {
    const opens = { '/dev/cciss/c0d0': -errno.EBUSY, '/dev/sdb': -errno.EBUSY };
    expect(claimsOf(new FabricatedFiles(files, opens), BDF).map(({ name }) => name)).toEqual(['cciss!c0d0']);
    const free = new FabricatedFiles(files, { '/dev/cciss/c0d0': Buffer.alloc(0) });
    expect(claimsOf(free, BDF)).toEqual([]);
    expect(free.leaked).toBe(0);
    expect(claimsOf(new FabricatedFiles(files, { '/dev/cciss/c0d0': -errno.EACCES }), BDF)).toEqual([]);
  });

  test('is not opened to list what a device is in use for', () => {
    expect(usesOf(new FabricatedFiles(files, { '/dev/cciss/c0d0': -errno.EBUSY }), BDF)).toEqual([]);
  });
});

test('programs that have a device open are found, by its file and by that of its group', () => {
  const files = new FabricatedFiles({
    '/proc/12/fd/7': '-> /dev/vfio/devices/vfio0',
    '/proc/12/comm': 'node\n',
    '/proc/12/fd/8': '-> /dev/vfio/4',
    '/proc/12/fd/9': '-> /dev/vfio/devices/vfio0',
    '/proc/13/fd/3': '-> /dev/vfio/4',
    '/proc/13/comm': 'qemu-system-x86\n',
    '/proc/14/fd/3': '-> /dev/vfio/devices/vfio1',
    '/proc/14/comm': 'other\n',
    '/proc/net/fd/1': '-> /dev/vfio/4',
    ...pciDevice(BDF),
  });
  const device = { path: '/dev/vfio/devices/vfio0', iommuGroup: 4 };
  expect(holdersOf(findHolders(files), device)).toEqual([
    { pid: 12, name: 'node' },
    { pid: 13, name: 'qemu-system-x86' },
  ]);
});
