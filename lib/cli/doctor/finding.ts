/** What a check of `iommufd doctor` says, and fixes that several share. */
import { errno, errnoName } from '../../uapi/errno';
import { SELF_AS_ROOT } from '../system';

/** One thing that was looked at. */
export interface Finding {
  /** 'warning': programs work, with less than they could have. 'skipped': another problem comes first. */
  readonly status: 'ok' | 'warning' | 'problem' | 'unknown' | 'skipped';
  /** What is the case. */
  readonly says: string;
  /** What to do about it. */
  readonly advice?: string;
  /** The fix, as commands for a shell, to be run in this order. */
  readonly commands?: readonly string[];
}

/** Gives a device to VFIO. */
export const BIND = `${SELF_AS_ROOT} bind`;

/** How to boot without a parameter. */
export function withoutParameter(parameter: string): Pick<Finding, 'advice' | 'commands'> {
  const quoted = parameter.replace(/[.*[\]^$/\\]/g, '\\$&');
  return {
    advice: `boot without '${parameter}' (the command is for GRUB)`,
    commands: [`sudo sed -i 's/ *${quoted}//' /etc/default/grub && sudo update-grub && sudo reboot`],
  };
}

/** A file that could not be opened, and how it can. */
export function refusedFile(
  path: string,
  opened: number,
  user: string,
  rule: string,
): Omit<Finding, 'status'> {
  const says = `${user} cannot open ${path} (${errnoName(opened)})`;
  if (opened === -errno.EPERM)
    return {
      says,
      advice: 'a container or a security policy forbids it: allow the file',
      commands: [`docker run --device ${path} --device /dev/vfio`],
    };
  if (opened !== -errno.EACCES)
    return { says, advice: 'the log of the kernel may say why', commands: ['sudo dmesg | tail'] };
  return {
    says,
    advice: `give it to ${user}; for good: a line '${rule}, OWNER="${user}"' in /etc/udev/rules.d/70-iommufd.rules`,
    commands: [`sudo chown ${user} ${path}`],
  };
}
