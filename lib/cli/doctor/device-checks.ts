/** Judgements about devices: is one VFIO's, may it be opened, who else is in its group, how much memory may it have. */
import { holderName } from '../bind/holders';
import { SELF } from '../system';
import type { DeviceFacts, Facts } from './facts';
import { BIND, refusedFile, type Finding } from './finding';

/** Whether a device can be had at all. */
const hasIommu = ({ iommus }: Facts) => iommus.length > 0;

function described({ description: { bdf, driver } }: DeviceFacts): string {
  return `${bdf} has ${driver === undefined ? 'no driver' : `the driver ${driver}`}`;
}

/** Several findings as one: what is wrong, else what is a pity, else what is right. */
function merge(findings: readonly Finding[]): Finding {
  const statuses = findings.map(({ status }) => status);
  const status = (['problem', 'warning'] as const).find((one) => statuses.includes(one)) ?? 'ok';
  const chosen = findings.filter((one) => one.status === status);
  const advice = [...new Set(chosen.flatMap((one) => one.advice ?? []))].join('; ');
  const commands = [...new Set(chosen.flatMap((one) => one.commands ?? []))];
  return {
    status,
    says: chosen.map(({ says }) => says).join('; '),
    ...(advice === '' ? {} : { advice }),
    ...(commands.length === 0 ? {} : { commands }),
  };
}

export function devices(facts: Facts): Finding {
  if (!hasIommu(facts)) return { status: 'skipped', says: 'that takes an IOMMU' };
  if (facts.devices.length > 0) return merge(facts.devices.map(device));
  return {
    status: 'problem',
    says: 'no device is bound to vfio-pci: there is none for programs',
    advice: 'choose one, and give it to VFIO',
    commands: [`${SELF} devices`, `${BIND} ADDRESS`],
  };
}

function device(facts: DeviceFacts): Finding {
  const { bdf, path, iommuGroup } = facts.description;
  if (path !== undefined) return given(facts, `${bdf} is VFIO's: ${path}`);
  if (iommuGroup === undefined) return { status: 'problem', says: `no IOMMU is in front of ${bdf}` };
  const uses = facts.uses.map(({ says }) => says).join(', ');
  return {
    status: 'problem',
    says: `${described(facts)}, not vfio-pci`,
    advice:
      uses === ''
        ? 'give it to VFIO'
        : `it is in use (${uses}): take another, or give that up before you give it to VFIO`,
    commands: [`${BIND} ${bdf}`],
  };
}

function given({ holders }: DeviceFacts, says: string): Finding {
  if (holders.length === 0) return { status: 'ok', says };
  return {
    status: 'warning',
    says: `${says}, open in ${holders.map(holderName).join(', ')}`,
    advice: 'one program at a time can have a device: another has to end first',
    commands: [`ps -fp ${holders.map(({ pid }) => pid).join(',')}`],
  };
}

export function deviceFiles({ devices: all, user }: Facts): Finding {
  const there = all.filter(({ opened }) => opened !== undefined);
  if (there.length === 0) return { status: 'skipped', says: 'no device has a VFIO device file' };
  return merge(
    there.map(({ description: { path = '' }, opened = 0 }) =>
      opened === 0
        ? { status: 'ok', says: `${user} may open ${path}` }
        : { status: 'problem', ...refusedFile(path, opened, user, 'SUBSYSTEM=="vfio-dev"') },
    ),
  );
}

export function groups(facts: Facts): Finding {
  const grouped = facts.devices.filter(({ description }) => description.iommuGroup !== undefined);
  if (!hasIommu(facts) || grouped.length === 0) return { status: 'skipped', says: 'no device to look at' };
  return merge(
    grouped.map(({ description: { bdf, iommuGroup }, inTheWay }) => {
      const says = `group ${iommuGroup} of ${bdf}`;
      if (inTheWay.length === 0) return { status: 'ok', says: `${says} has nothing in the way` };
      const others = inTheWay.map((one) => `${one.bdf} (driver ${one.driver})`).join(', ');
      return {
        status: 'problem',
        says: `${says} also has ${others}: Linux gives the group to one owner only (EBUSY)`,
        advice: 'the other devices must leave their drivers too',
        commands: [`${BIND} --group ${bdf}`],
      };
    }),
  );
}

/** Less than this is little for DMA: one large buffer. */
const ENOUGH = 64 * 2 ** 20;

function amount(bytes: number): string {
  return bytes >= 2 ** 20 ? `${Math.floor(bytes / 2 ** 20)} MiB` : `${Math.floor(bytes / 1024)} KiB`;
}

export function memlock({ memlock: { bytes, exempt } }: Facts): Finding {
  if (exempt) return { status: 'ok', says: 'no limit counts for a process with CAP_IPC_LOCK' };
  if (bytes === undefined) return { status: 'unknown', says: 'the limit of locked memory cannot be read' };
  if (bytes === Infinity) return { status: 'ok', says: 'any amount of memory may be locked for DMA' };
  const says = `${amount(bytes)} of memory may be locked for DMA`;
  if (bytes >= ENOUGH) return { status: 'ok', says };
  return {
    status: bytes === 0 ? 'problem' : 'warning',
    says: `${says}: mapping more is refused (ENOMEM)`,
    advice:
      "raise the limit of this shell; for good: a line '* - memlock unlimited' in /etc/security/limits.conf",
    commands: ['sudo prlimit --pid $$ --memlock=unlimited'],
  };
}
