/** The judgements of `iommufd doctor`: from facts to findings, without a look at the system. */
import { deviceFiles, devices, groups, memlock } from './device-checks';
import type { Facts } from './facts';
import type { Finding } from './finding';
import { interrupts, iommu } from './hardware-checks';
import { addon, iommufd, kernel, options, permission, vfio } from './kernel-checks';

/** A finding and what it is about. */
export interface Check extends Finding {
  readonly name: string;
}

const CHECKS: Readonly<Record<string, (facts: Facts) => Finding>> = {
  kernel,
  options,
  iommu,
  interrupts,
  iommufd,
  vfio,
  permission,
  devices,
  'device files': deviceFiles,
  groups,
  memlock,
  addon,
};

/** Every check, in the order in which problems are best solved. */
export function judge(facts: Facts): Check[] {
  if (facts.platform !== 'linux')
    return [
      {
        name: 'kernel',
        status: 'problem',
        says: `this is ${facts.platform}: /dev/iommu is a part of Linux`,
        advice: 'programs run on the simulated backend here',
        commands: ['IOMMUFD_BACKEND=simulated npx iommufd demo'],
      },
    ];
  return Object.entries(CHECKS).map(([name, check]) => ({ name, ...check(facts) }));
}
