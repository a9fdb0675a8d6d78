/** What `iommufd doctor` advises about IOMMUs and interrupts, by the kind of the machine. */
import { judge } from '../../lib/cli/doctor/checks';
import { gatherFacts } from '../../lib/cli/doctor/facts';
import { FabricatedFiles, goodMachine, systemOf, type Files } from './fabricated';

const VIRTUAL = 'flags\t: fpu hypervisor lm\n';
const INTEL = `vendor_id\t: GenuineIntel\n${VIRTUAL}`;
const AMD = `vendor_id\t: AuthenticAMD\n${VIRTUAL}`;
const ARM = 'processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\n';
const NOT_REMAPPED = ' 24:   0  PCI-MSIX-0000:00:05.0   0-edge  nvme0q0\n';
const GICV2M = ' 24:   0  GICv2m-PCI-MSIX-0000:00:05.0   0 Edge  nvme0q0\n';

/** The check of that name, on a machine of other files: those of a good one's IOMMU are gone. */
function check(name: string, files: Files) {
  const good = goodMachine();
  const gone = /^\/sys\/(class\/iommu|firmware)|\/iommu$/;
  const kept = Object.entries(good.files).filter(([path]) => !gone.test(path));
  const system = systemOf(new FabricatedFiles({ ...Object.fromEntries(kept), ...files }, good.opens));
  return judge(gatherFacts(system, [])).find((one) => one.name === name);
}

function iommu(name: string): Files {
  return { [`/sys/class/iommu/${name}`]: `-> ../../devices/virtual/iommu/${name}` };
}

describe('interrupts that are not remapped', () => {
  const firmware = /^turn interrupt remapping .*setup of the firmware; /;
  test.each([
    ['VT-d of a virtual machine', 'dmar0', INTEL, /^start .*split and intel-iommu,intremap=on; /],
    ['AMD-Vi of a virtual machine', 'ivhd0', AMD, /^start .*split and amd-iommu,intremap=on; /],
    ['AMD-Vi beside a processor of Intel', 'ivhd0', INTEL, /^start .*split and amd-iommu,intremap=on; /],
    [
      'virtio-iommu',
      '0000:00:03.0',
      INTEL,
      /^a virtio-iommu remaps no interrupts: start .*intel-iommu,intremap=on instead; /,
    ],
    ['AMD-Vi of a machine', 'ivhd0', 'vendor_id\t: AuthenticAMD\nflags\t: fpu\n', firmware],
    ['VT-d of a machine', 'dmar0', 'vendor_id\t: GenuineIntel\nflags\t: fpu\n', firmware],
  ])('%s: the advice is for that one', (_what, name, processor, advice) => {
    const found = check('interrupts', {
      ...iommu(name),
      '/proc/cpuinfo': processor,
      '/proc/interrupts': NOT_REMAPPED,
    });
    expect(found).toMatchObject({ status: 'problem', advice: expect.stringMatching(advice) as string });
  });

  test.each([
    [
      'by ACPI',
      { '/sys/class/dmi/id/sys_vendor': 'QEMU\n' },
      /^start the virtual machine with gic-version=3/,
    ],
    [
      'by device tree',
      { '/proc/device-tree/compatible': 'linux,dummy-virt\0' },
      /^start the virtual machine/,
    ],
    ['or not', {}, /^interrupts take an ITS/],
  ])('Arm, QEMU %s', (_what, files, advice) => {
    const found = check('interrupts', {
      ...iommu('smmu3.0x0000000009050000'),
      ...(files as Files),
      '/proc/cpuinfo': ARM,
      '/proc/interrupts': GICV2M,
    });
    expect(found).toMatchObject({ status: 'problem', advice: expect.stringMatching(advice) as string });
    expect(found?.advice).not.toMatch(/intel|amd|x2APIC/i);
  });
});

describe('no IOMMU', () => {
  test.each([
    ['Arm', {}, 'sudo systemctl reboot --firmware-setup'],
    ['Arm on QEMU', { '/sys/class/dmi/id/sys_vendor': 'QEMU\n' }, 'qemu-system-aarch64 -machine virt,'],
    ['Arm with a table for interrupts', { '/sys/firmware/acpi/tables/IORT': '' }, 'sudo systemctl reboot'],
  ])('%s: no advice for x86', (_what, files, command) => {
    const found = check('iommu', { ...(files as Files), '/proc/cpuinfo': ARM });
    expect(found?.commands?.[0]).toContain(command);
    expect(`${found?.advice} ${found?.commands?.[0]}`).not.toMatch(/VT-d|AMD|intel|x86/);
  });

  test('a virtio-iommu whose driver is not there', () => {
    const files = { '/proc/cpuinfo': INTEL, '/sys/firmware/acpi/tables/VIOT': '' };
    expect(check('iommu', files)).toMatchObject({
      says: 'no IOMMU is on, though the machine has a virtual one (its table VIOT)',
      commands: ['sudo modprobe virtio_iommu'],
    });
  });
});
