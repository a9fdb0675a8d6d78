import { judge, type Check } from '../../lib/cli/doctor/checks';
import { doctor } from '../../lib/cli/doctor/command';
import { areRemapped, gatherFacts } from '../../lib/cli/doctor/facts';
import { simulatedSystem, type System } from '../../lib/cli/system';
import { Machine } from '../../lib/sim';
import { errno } from '../../lib/uapi';
import { configuration, FabricatedFiles, goodMachine, pciDevice, systemOf, type Files } from './fabricated';

interface Changes {
  readonly files?: Files;
  /** Paths, or starts of paths, that are not there. */
  readonly without?: readonly string[];
  readonly opens?: Record<string, Buffer | number>;
  readonly system?: Partial<System>;
}

function machine({ files = {}, without = [], opens = {}, system = {} }: Changes): System {
  const good = goodMachine();
  const kept = Object.entries(good.files).filter(
    ([path]) => !without.some((start) => path.startsWith(start)),
  );
  const made = new FabricatedFiles({ ...Object.fromEntries(kept), ...files }, { ...good.opens, ...opens });
  return systemOf(made, system);
}

function checksOf(changes: Changes, ...asked: string[]): Check[] {
  return judge(gatherFacts(machine(changes), asked));
}

/** Name, status, what is said, advice and commands of the checks that are not well. */
function wrong(changes: Changes, ...asked: string[]): Check[] {
  return checksOf(changes, ...asked).filter(({ status }) => status === 'problem' || status === 'warning');
}

const NO_IOMMU = [
  '/sys/class/iommu',
  '/sys/kernel/iommu_groups',
  '/sys/devices/pci0000:00/0000:00:04.0/iommu',
];

describe('iommufd doctor', () => {
  test('finds nothing wrong where all is well, and leaves no file open', () => {
    const system = machine({});
    const checks = judge(gatherFacts(system, []));
    expect(checks.map(({ status }) => status)).toEqual(checks.map(() => 'ok'));
    expect(checks.map(({ name }) => name)).toEqual([
      ...['kernel', 'options', 'iommu', 'interrupts', 'iommufd', 'vfio', 'permission'],
      ...['devices', 'device files', 'groups', 'memlock', 'addon'],
    ]);
    expect((system.files as FabricatedFiles).leaked).toBe(0);
  });

  test.each<[string, Changes, Partial<Check>]>([
    ['an old kernel', { files: { '/proc/sys/kernel/osrelease': '6.10.3\n' } }, { name: 'kernel' }],
    ['an older one', { files: { '/proc/sys/kernel/osrelease': '5.15.0-91-generic\n' } }, { name: 'kernel' }],
    [
      'options that are off',
      {
        opens: {
          '/proc/config.gz': configuration({ IOMMUFD: 'm', VFIO: 'm', VFIO_PCI: 'm', INTEL_IOMMU: 'y' }),
        },
      },
      {
        name: 'options',
        says: 'the kernel was built without CONFIG_VFIO_DEVICE_CDEV, CONFIG_IRQ_REMAP',
        commands: [
          'scripts/config --enable VFIO_DEVICE_CDEV --enable IRQ_REMAP',
          'make olddefconfig && make -j"$(nproc)" && sudo make modules_install install',
        ],
      },
    ],
    [
      'an IOMMU that nobody turned on',
      { without: [...NO_IOMMU, '/proc/cmdline'] },
      {
        name: 'iommu',
        commands: [
          `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&intel_iommu=on /' /etc/default/grub && sudo update-grub && sudo reboot`,
        ],
      },
    ],
    [
      'an IOMMU that a parameter turned off',
      { without: NO_IOMMU, files: { '/proc/cmdline': 'ro intel_iommu=sm_on,off quiet\n' } },
      {
        name: 'iommu',
        says: "no IOMMU is on: 'intel_iommu=sm_on,off' turned it off",
        commands: [
          "sudo sed -i 's/ *intel_iommu=sm_on,off//' /etc/default/grub && sudo update-grub && sudo reboot",
        ],
      },
    ],
    [
      'a firmware that hides it',
      { without: [...NO_IOMMU, '/sys/firmware'] },
      { name: 'iommu', commands: ['sudo systemctl reboot --firmware-setup'] },
    ],
    [
      'a virtual machine without one',
      { without: [...NO_IOMMU, '/sys/firmware'], files: { '/proc/cpuinfo': 'flags\t: fpu hypervisor lm\n' } },
      { name: 'iommu', advice: 'this is a virtual machine: start it with an IOMMU, on its host' },
    ],
    [
      "the selftest's IOMMU alone",
      { without: NO_IOMMU, files: { '/sys/class/iommu/iommufd_selftest_iommu.0': '-> ../x' } },
      { name: 'iommu' },
    ],
    [
      'an IOMMU with nothing behind it',
      { without: ['/sys/kernel/iommu_groups', '/sys/devices/pci0000:00/0000:00:04.0/iommu_group'] },
      { name: 'iommu', says: 'dmar0 (Intel VT-d) is there, but no device is behind it' },
    ],
    [
      'interrupts that are not remapped',
      { files: { '/proc/interrupts': ' 2:  0  IO-APIC  2-edge  timer\n' } },
      {
        name: 'interrupts',
        commands: ['echo Y | sudo tee /sys/module/iommufd/parameters/allow_unsafe_interrupts'],
      },
    ],
    [
      'a parameter that keeps them from being remapped',
      {
        files: {
          '/proc/interrupts': ' 2:  0  IO-APIC  2-edge  timer\n',
          '/proc/cmdline': 'intremap=off intel_iommu=on\n',
        },
      },
      {
        name: 'interrupts',
        commands: ["sudo sed -i 's/ *intremap=off//' /etc/default/grub && sudo update-grub && sudo reboot"],
      },
    ],
    [
      'a module that is not loaded',
      { opens: { '/dev/iommu': -errno.ENOENT }, without: ['/sys/class/misc'] },
      { name: 'iommufd', commands: ['sudo modprobe iommufd'] },
    ],
    [
      'a module that cannot be loaded',
      {
        opens: { '/dev/iommu': -errno.ENOENT },
        without: ['/sys/class/misc'],
        files: { '/proc/cmdline': 'module_blacklist=nouveau,iommufd quiet\n' },
      },
      {
        name: 'iommufd',
        commands: [
          "sudo sed -i 's/ *module_blacklist=nouveau,iommufd//' /etc/default/grub && sudo update-grub && sudo reboot",
        ],
      },
    ],
    [
      'a missing file',
      { opens: { '/dev/iommu': -errno.ENOENT } },
      { name: 'iommufd', commands: ['sudo mknod -m 600 /dev/iommu c 10 127'] },
    ],
    [
      'iommufd that is built in and did not start',
      {
        opens: {
          '/dev/iommu': -errno.ENOENT,
          '/proc/config.gz': configuration({
            ...{ IOMMUFD: 'y', VFIO: 'y', VFIO_PCI: 'y', VFIO_DEVICE_CDEV: 'y' },
            ...{ INTEL_IOMMU: 'y', IRQ_REMAP: 'y' },
          }),
        },
        without: ['/sys/class/misc'],
      },
      { name: 'iommufd', commands: ['sudo dmesg | grep -i iommu'] },
    ],
    [
      'a file for others only',
      { opens: { '/dev/iommu': -errno.EACCES } },
      {
        name: 'permission',
        says: 'ada cannot open /dev/iommu (EACCES)',
        commands: ['sudo chown ada /dev/iommu'],
      },
    ],
    [
      'a container',
      { opens: { '/dev/iommu': -errno.EPERM } },
      { name: 'permission', commands: ['docker run --device /dev/iommu --device /dev/vfio'] },
    ],
    [
      "a device's file for others only",
      { opens: { '/dev/vfio/devices/vfio0': -errno.EACCES } },
      { name: 'device files', commands: ['sudo chown ada /dev/vfio/devices/vfio0'] },
    ],
    [
      'an addon that is not built',
      { system: { addonProblem: () => 'the native addon is not built' } },
      { name: 'addon', says: 'the native addon is not built' },
    ],
    [
      'a little memory to lock',
      { files: { '/proc/self/limits': 'Max locked memory   8388608  8388608  bytes\n' } },
      {
        name: 'memlock',
        status: 'warning',
        says: '8 MiB of memory may be locked for DMA: mapping more is refused (ENOMEM)',
        commands: ['sudo prlimit --pid $$ --memlock=unlimited'],
      },
    ],
    [
      'no memory to lock',
      { files: { '/proc/self/limits': 'Max locked memory   0  0  bytes\n' } },
      { name: 'memlock', status: 'problem' },
    ],
    [
      'a program that has the device',
      { files: { '/proc/77/fd/9': '-> /dev/vfio/devices/vfio0', '/proc/77/comm': 'node\n' } },
      {
        name: 'devices',
        status: 'warning',
        says: "0000:00:04.0 is VFIO's: /dev/vfio/devices/vfio0, open in process 77 (node)",
        commands: ['ps -fp 77'],
      },
    ],
    [
      'interrupts that iommufd was told to do without',
      {
        files: {
          '/proc/interrupts': ' 2:  0  IO-APIC  2-edge  timer\n',
          '/sys/module/iommufd/parameters/allow_unsafe_interrupts': 'Y\n',
        },
      },
      { name: 'interrupts', status: 'warning' },
    ],
  ])('finds %s, and nothing else, and has a fix for it', (_what, changes, expected) => {
    const found = wrong(changes);
    expect(found).toEqual([expect.objectContaining({ status: 'problem', ...expected })]);
    for (const { commands } of found.filter(({ status }) => status === 'problem'))
      expect(commands?.length).toBeGreaterThan(0);
  });
});

describe('the devices that iommufd doctor looks at', () => {
  const OTHER = pciDevice('0000:00:05.0', { driver: 'nvme', group: 4 });

  test('are those of VFIO: one at least', () => {
    expect(wrong({ files: OTHER })).toEqual([]);
    expect(wrong({ without: ['/sys/devices/pci0000:00', '/sys/bus/pci/devices'], files: OTHER })).toEqual([
      expect.objectContaining({
        name: 'devices',
        commands: ['npx iommufd devices', 'sudo env "PATH=$PATH" npx iommufd bind ADDRESS'],
      }),
    ]);
  });

  test('or those asked for', () => {
    expect(wrong({ files: OTHER }, '00:05.0')).toEqual([
      expect.objectContaining({
        name: 'devices',
        says: '0000:00:05.0 has the driver nvme, not vfio-pci',
        advice: 'give it to VFIO',
        commands: ['sudo env "PATH=$PATH" npx iommufd bind 0000:00:05.0'],
      }),
    ]);
    expect(wrong({ files: OTHER }, '00:04.0')).toEqual([]);
    expect(() => checksOf({}, '00:09.0')).toThrow('there is no PCI device 0000:00:09.0');
    expect(() => checksOf({}, 'eth0')).toThrow(TypeError);
  });

  test('may be in use', () => {
    const display = { ...OTHER, '/sys/devices/pci0000:00/0000:00:05.0/boot_vga': '1\n' };
    expect(wrong({ files: display }, '00:05.0')).toEqual([
      expect.objectContaining({
        advice: expect.stringContaining('0000:00:05.0 is the display the machine started with') as string,
      }),
    ]);
  });

  test('share groups: drivers of the kernel are in the way, bridges and devices without a driver are not', () => {
    const mates = {
      ...pciDevice('0000:00:04.1', { driver: 'snd_hda_intel', group: 3 }),
      ...pciDevice('0000:00:04.2', { group: 3 }),
      ...pciDevice('0000:00:04.3', { driver: 'pcieport', group: 3 }),
      ...pciDevice('0000:00:06.0', { driver: 'e1000e', group: 5 }),
    };
    expect(wrong({ files: mates })).toEqual([
      expect.objectContaining({
        name: 'groups',
        says: 'group 3 of 0000:00:04.0 also has 0000:00:04.1 (driver snd_hda_intel): Linux gives the group to one owner only (EBUSY)',
        commands: ['sudo env "PATH=$PATH" npx iommufd bind --group 0000:00:04.0'],
      }),
    ]);
  });
});

describe('iommufd doctor does not guess', () => {
  test('where Linux says nothing', () => {
    const checks = checksOf({
      without: ['/proc/sys/kernel/osrelease', '/proc/interrupts', '/proc/self/limits'],
      opens: { '/proc/config.gz': -errno.ENOENT },
    });
    const unknown = checks.filter(({ status }) => status === 'unknown').map(({ name }) => name);
    expect(unknown).toEqual(['kernel', 'options', 'interrupts', 'memlock']);
  });

  test('and takes the options from /boot where /proc has none', () => {
    const checks = checksOf({
      files: { '/boot/config-6.12.9-amd64': '# CONFIG_IOMMUFD is not set\nCONFIG_VFIO=m\n' },
      opens: { '/proc/config.gz': -errno.ENOENT },
    });
    expect(checks.find(({ name }) => name === 'options')).toMatchObject({
      status: 'problem',
      says: expect.stringContaining('CONFIG_IOMMUFD') as string,
    });
  });

  test.each([
    ['  24:   0  IR-PCI-MSIX-0000:00:07.0   0-edge  x', true],
    ['  24:   0  IR-PCI-MSI 458752-edge  PCIe PME', true],
    ['  24:   0  ITS-MSI 1 Edge  x', true],
    ['  24:   0  PCI-MSIX-0000:00:07.0   0-edge  x\n 2:  0  DMAR-MSI  0-edge dmar0', false],
    ['  24:   0  GICv2m-PCI-MSIX-0000:00:02.0   0 Edge  x', false],
    ['  24:   0  GICv3  27 Level  arch_timer', undefined],
    [undefined, undefined],
  ])('about interrupts: %j', (text, expected) => expect(areRemapped(text)).toBe(expected));
});

describe('iommufd doctor says', () => {
  function said(system: System, json: boolean) {
    let text = '';
    const output = { out: (more: string) => void (text += more), error: () => {} };
    return { status: doctor(system, [], json, output), text };
  }

  test('to people: a line for each check, the fix, the sum', () => {
    const { status, text } = said(machine({ opens: { '/dev/iommu': -errno.EACCES } }), false);
    expect(status).toBe(1);
    expect(text).toMatch(/^PROBLEM  permission    ada cannot open \/dev\/iommu \(EACCES\)$/m);
    expect(text).toMatch(/^ {23} {2}\$ sudo chown ada \/dev\/iommu$/m);
    expect(text).toMatch(/\n\n1 problem\.\n$/);
    expect(said(machine({}), false)).toMatchObject({ status: 0, text: expect.stringMatching(/All is well/) });
  });

  test('to programs: the same as JSON', () => {
    const { status, text } = said(machine({ opens: { '/dev/iommu': -errno.EACCES } }), true);
    const { ok, checks } = JSON.parse(text) as { ok: boolean; checks: Check[] };
    expect([status, ok]).toEqual([1, false]);
    expect(checks.find(({ name }) => name === 'permission')?.commands).toEqual(['sudo chown ada /dev/iommu']);
  });

  test('where there is no Linux, that, and that alone', () => {
    const { checks } = JSON.parse(said(machine({ system: { platform: 'darwin' } }), true).text) as {
      checks: Check[];
    };
    expect(checks).toEqual([expect.objectContaining({ name: 'kernel', status: 'problem' })]);
    expect(checks[0].says).toContain('darwin');
  });

  test('the same of a simulated machine', () => {
    const system = simulatedSystem(new Machine().process());
    const { status, text } = said(system, false);
    expect(status).toBe(0);
    expect(text).toMatch(/^ok +kernel +Linux 7\.3\.0-simulated$/m);
    expect(text).toMatch(/No problem, as far as Linux says\.\n$/);
    const none = said(simulatedSystem(new Machine({ iommu: 'none' }).process()), true);
    const { checks } = JSON.parse(none.text) as { checks: Check[] };
    expect(checks.filter((one) => one.status === 'problem').map(({ name }) => name)).toEqual(['iommu']);
    const other = new Machine().createProcess({ uid: 1000 });
    const refused = JSON.parse(said(simulatedSystem(other), true).text) as { checks: Check[] };
    expect(refused.checks.find(({ name }) => name === 'memlock')).toMatchObject({ status: 'warning' });
    expect(refused.checks.filter((one) => one.status === 'problem').map(({ name }) => name)).toEqual([
      'permission',
      'device files',
    ]);
  });
});
