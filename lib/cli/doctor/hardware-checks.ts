/** Judgements about the machine: its IOMMU, and whether interrupts are remapped. */
import type { Facts } from './facts';
import { withoutParameter, type Finding } from './finding';

const KINDS: readonly (readonly [RegExp, string])[] = [
  [/^dmar/, 'Intel VT-d'],
  [/^ivhd/, 'AMD-Vi'],
  [/^smmu/, 'Arm SMMU'],
  [/^[0-9a-f]{4,}:|virtio/, 'virtio-iommu'],
];

export function iommuKind(name: string): string {
  return KINDS.find(([pattern]) => pattern.test(name))?.[1] ?? 'an IOMMU';
}

export function iommu(facts: Facts): Finding {
  const { iommus, groups } = facts;
  if (iommus.length === 0) return noIommu(facts);
  const says = iommus.map((name) => `${name} (${iommuKind(name)})`).join(', ');
  if (groups > 0) return { status: 'ok', says: `${says}, ${groups} groups of devices` };
  return {
    status: 'problem',
    says: `${says} is there, but no device is behind it`,
    advice: 'the log of the kernel says why',
    commands: ['sudo dmesg | grep -i -e dmar -e amd-vi -e smmu -e iommu'],
  };
}

const OFF = /^(intel_iommu|amd_iommu|iommu)=(.*,)?off(,|$)/;

function noIommu({ parameters, firmwareTable, processor }: Facts): Finding {
  const status = 'problem';
  const says = 'no IOMMU is on';
  const off = parameters.find((one) => OFF.test(one));
  if (off !== undefined) return { status, says: `${says}: '${off}' turned it off`, ...withoutParameter(off) };
  if (firmwareTable === 'DMAR' || firmwareTable === 'IVRS') {
    const parameter = firmwareTable === 'DMAR' ? 'intel_iommu=on' : 'amd_iommu=on';
    return {
      status,
      says: `${says}, though the machine has one (its table ${firmwareTable})`,
      advice: `boot with ${parameter} (the command is for GRUB)`,
      commands: [
        `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${parameter} /' /etc/default/grub && sudo update-grub && sudo reboot`,
      ],
    };
  }
  if (firmwareTable === 'VIOT')
    return {
      status,
      says: `${says}, though the machine has a virtual one (its table VIOT)`,
      advice: 'load its driver; the kernel may have it as a module',
      commands: ['sudo modprobe virtio_iommu'],
    };
  // IORT is there for interrupts as well: it need not have an SMMU.
  return { status, says: `${says}: the firmware describes none`, ...switchOn(processor) };
}

/** Settings of firmware, by who makes the processor. */
const SETTINGS = { intel: "'VT-d'", amd: "'IOMMU' or 'AMD-Vi'", arm: "'SMMU' or 'IOMMU'" } as const;

const QEMU = {
  x86: 'qemu-system-x86_64 -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,x-scalable-mode=on',
  arm: 'qemu-system-aarch64 -machine virt,gic-version=3,iommu=smmuv3',
} as const;

function switchOn({ vendor, virtual }: Facts['processor']): Pick<Finding, 'advice' | 'commands'> {
  if (virtual)
    return {
      advice: 'this is a virtual machine: start it with an IOMMU, on its host',
      commands: [`${vendor === 'arm' ? QEMU.arm : QEMU.x86} # and the rest`],
    };
  const name = vendor === undefined ? "'VT-d', 'AMD-Vi' or 'IOMMU'" : SETTINGS[vendor];
  return {
    advice: `turn ${name} on in the setup of the firmware, which the command enters`,
    commands: ['sudo systemctl reboot --firmware-setup'],
  };
}

const NOT_REMAPPED = /^(intremap=off|nointremap|noapic|iommu=(.*,)?(off)(,|$))/;
const TRUSTED = 'echo Y | sudo tee /sys/module/iommufd/parameters/allow_unsafe_interrupts';

/** Without, a device could forge any interrupt, and Linux does not bind it (EPERM). */
export function interrupts({
  iommus,
  interrupts: { remapped, unsafeAllowed },
  parameters,
  processor,
}: Facts): Finding {
  if (iommus.length === 0) return { status: 'skipped', says: 'that takes an IOMMU' };
  if (remapped === true) return { status: 'ok', says: 'interrupts are remapped' };
  if (remapped === undefined)
    return { status: 'unknown', says: 'Linux does not say whether interrupts are remapped' };
  const says = 'interrupt remapping is off';
  if (unsafeAllowed)
    return {
      status: 'warning',
      says: `${says}, and iommufd was told to go on: a device can forge interrupts`,
    };
  const refused = `${says}: Linux refuses to bind any device (EPERM)`;
  const anyway = 'for devices that you trust, the command goes on without, until the next boot';
  const off = parameters.find((one) => NOT_REMAPPED.test(one));
  if (off !== undefined)
    return { status: 'problem', says: `${refused}; '${off}' turned it off`, ...withoutParameter(off) };
  const advice = `${howToRemap(iommus.map(iommuKind), processor)}; ${anyway}`;
  return { status: 'problem', says: refused, advice, commands: [TRUSTED] };
}

/** Who remaps interrupts: the IOMMU itself on x86, unless it is virtio's; Arm's interrupt controller. */
function howToRemap(kinds: readonly string[], { vendor, virtual }: Facts['processor']): string {
  if (vendor === 'arm')
    return virtual
      ? 'start the virtual machine with gic-version=3, whose ITS keeps interrupts apart'
      : 'interrupts take an ITS (GICv3 or later) here, which the machine lacks or the firmware does not describe';
  if (!virtual) return "turn interrupt remapping (or 'x2APIC') on in the setup of the firmware";
  const start = 'start the virtual machine with kernel-irqchip=split and';
  if (kinds.includes('AMD-Vi')) return `${start} amd-iommu,intremap=on`;
  if (kinds.includes('Intel VT-d')) return `${start} intel-iommu,intremap=on`;
  return kinds.includes('virtio-iommu')
    ? `a virtio-iommu remaps no interrupts: ${start} intel-iommu,intremap=on instead`
    : `${start} an IOMMU that remaps interrupts, such as intel-iommu,intremap=on`;
}
