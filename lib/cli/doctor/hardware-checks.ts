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
    commands: ['sudo dmesg | grep -i -e dmar -e iommu'],
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
  return { status, says: `${says}: the firmware describes none`, ...switchOn(processor) };
}

function switchOn({ vendor, virtual }: Facts['processor']): Pick<Finding, 'advice' | 'commands'> {
  if (virtual)
    return {
      advice: 'this is a virtual machine: start it with an IOMMU, on its host',
      commands: [
        'qemu-system-x86_64 -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,x-scalable-mode=on # and the rest',
      ],
    };
  const name =
    vendor === 'amd' ? "'IOMMU' or 'AMD-Vi'" : vendor === 'intel' ? "'VT-d'" : "'VT-d', 'AMD-Vi' or 'IOMMU'";
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
  const where = processor.virtual
    ? 'start the virtual machine with kernel-irqchip=split and intel-iommu,intremap=on'
    : "turn interrupt remapping (or 'x2APIC') on in the setup of the firmware";
  return { status: 'problem', says: refused, advice: `${where}; ${anyway}`, commands: [TRUSTED] };
}
