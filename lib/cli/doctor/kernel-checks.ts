/** Judgements about the kernel: its version and options, iommufd, VFIO; and about the addon that calls it. */
import { errno, errnoName } from '../../uapi/errno';
import { SELF } from '../system';
import type { Facts } from './facts';
import { refusedFile, withoutParameter, type Finding } from './finding';

/** The first Linux with everything that this package takes for granted: IOMMU_FAULT_QUEUE_ALLOC is of 6.11. */
const OLDEST = [6, 11] as const;
const IN_A_VM = `or try it in a virtual machine (${SELF} vm --help)`;

export function kernel({ release }: Facts): Finding {
  const numbers = /^(\d+)\.(\d+)/
    .exec(release ?? '')
    ?.slice(1)
    .map(Number);
  if (numbers === undefined) return { status: 'unknown', says: 'the kernel does not say its version' };
  const [major, minor] = numbers;
  const says = `Linux ${release}`;
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return { status: 'ok', says };
  return {
    status: 'problem',
    says: `${says} is too old: ${OLDEST.join('.')} or later is needed`,
    advice: `boot a newer kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV, ${IN_A_VM}`,
    commands: [`${SELF} vm ${SELF} demo`],
  };
}

/** As the kernel's scripts/config turns them on. */
const NEEDED = {
  IOMMUFD: '--module IOMMUFD',
  VFIO: '--module VFIO',
  VFIO_PCI: '--module VFIO_PCI',
  VFIO_DEVICE_CDEV: '--enable VFIO_DEVICE_CDEV',
} as const;
/** What the firmware's table of IOMMUs asks for. */
const DRIVERS: Readonly<Record<string, readonly string[]>> = {
  DMAR: ['INTEL_IOMMU', 'IRQ_REMAP'],
  IVRS: ['AMD_IOMMU', 'IRQ_REMAP'],
  IORT: ['ARM_SMMU_V3'],
  VIOT: ['VIRTIO_IOMMU'],
};

export function options({ options: on, firmwareTable }: Facts): Finding {
  if (on === undefined)
    return { status: 'unknown', says: 'neither /proc/config.gz nor /boot/config-* can be read' };
  const drivers = DRIVERS[firmwareTable ?? ''] ?? [];
  const missing = [...Object.keys(NEEDED), ...drivers].filter((name) => !on.has(name));
  if (missing.length === 0) return { status: 'ok', says: 'the kernel has everything built that is needed' };
  const changes = missing.map((name) => NEEDED[name as keyof typeof NEEDED] ?? `--enable ${name}`);
  return {
    status: 'problem',
    says: `the kernel was built without ${missing.map((name) => `CONFIG_${name}`).join(', ')}`,
    advice: `boot a kernel that has them, build one in the folder of its source, ${IN_A_VM}`,
    commands: [
      `scripts/config ${changes.join(' ')}`,
      'make olddefconfig && make -j"$(nproc)" && sudo make modules_install install',
    ],
  };
}

const isAbsent = (opened: number) => [errno.ENOENT, errno.ENODEV, errno.ENXIO].some((one) => opened === -one);

export function iommufd({ iommufd: { opened, number }, options: on, parameters }: Facts): Finding {
  if (!isAbsent(opened)) return { status: 'ok', says: '/dev/iommu is there' };
  const says = `there is no /dev/iommu (${errnoName(opened)})`;
  if (number !== undefined)
    return {
      status: 'problem',
      says: `${says}, though the kernel has iommufd: the file is missing`,
      advice: 'make the file; in a container, hand it in (docker run --device /dev/iommu)',
      commands: [`sudo mknod -m 600 /dev/iommu c ${number.replace(':', ' ')}`],
    };
  if (on !== undefined && !on.has('IOMMUFD'))
    return { status: 'skipped', says: `${says}: the kernel was built without it` };
  const blocked = parameters.filter((one) =>
    /^(initcall_blacklist|module_blacklist|modprobe\.blacklist)=.*iommufd/.test(one),
  );
  if (blocked.length > 0)
    return {
      status: 'problem',
      says: `${says}: '${blocked[0]}' keeps it from starting`,
      ...withoutParameter(blocked[0]),
    };
  if (on?.get('IOMMUFD') === 'y')
    return {
      status: 'problem',
      says: `${says}, though iommufd is built in: it did not start`,
      advice: 'the log of the kernel says why',
      commands: ['sudo dmesg | grep -i iommu'],
    };
  return { status: 'problem', says, advice: 'load the module', commands: ['sudo modprobe iommufd'] };
}

export function vfio({ vfio: { deviceFiles: has, driver }, options: on }: Facts): Finding {
  const lacks = on !== undefined && !(on.has('VFIO_PCI') && on.has('VFIO_DEVICE_CDEV'));
  if (lacks) return { status: 'skipped', says: 'the kernel was built without it' };
  if (!driver)
    return {
      status: 'problem',
      says: 'the driver vfio-pci is not loaded',
      advice: 'load the module',
      commands: ['sudo modprobe vfio-pci'],
    };
  if (has === false)
    return {
      status: 'problem',
      says: 'VFIO has no device files: the kernel was built without CONFIG_VFIO_DEVICE_CDEV',
      advice: `boot a kernel that has it, ${IN_A_VM}`,
      commands: ['scripts/config --enable VFIO_DEVICE_CDEV && make olddefconfig && make -j"$(nproc)"'],
    };
  const known = has === true ? 'vfio-pci is loaded, and VFIO has device files' : 'vfio-pci is loaded';
  return { status: has === true ? 'ok' : 'unknown', says: known };
}

export function permission({ iommufd: { opened }, user }: Facts): Finding {
  if (isAbsent(opened)) return { status: 'skipped', says: 'there is no /dev/iommu to open' };
  return opened === 0
    ? { status: 'ok', says: `${user} may open /dev/iommu` }
    : { status: 'problem', ...refusedFile('/dev/iommu', opened, user, 'SUBSYSTEM=="misc", KERNEL=="iommu"') };
}

export function addon({ addon: problem, simulated }: Facts): Finding {
  if (problem !== undefined)
    return {
      status: 'problem',
      says: problem,
      advice: 'it takes Python 3, make and a C++ compiler',
      commands: ['sudo apt-get install --no-install-recommends python3 make g++', 'npx iommufd build'],
    };
  return {
    status: 'ok',
    says: simulated ? 'the simulated kernel needs none' : 'the native addon is built and loads',
  };
}
