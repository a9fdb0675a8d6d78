// What the guest is told to do: a shell script for init.sh, sent over the control channel.
import type { Environment } from './find';
import type { VmOptions } from './options';
import { EDU_ADDRESSES, NVME_ADDRESS, shareTag } from './qemu';

const PASSED = new Set([
  'CI',
  'FORCE_COLOR',
  'LANG',
  'LC_ALL',
  'NODE_OPTIONS',
  'NO_COLOR',
  'PATH',
  'TERM',
  'TZ',
]);

/** `word` as one word of a POSIX shell, whatever is in it (a NUL byte cannot be). */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The caller's variables that the guest's command gets too. */
export function passedEnvironment(environment: Environment): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    const wanted = PASSED.has(name) || /^IOMMUFD_\w+$/.test(name);
    if (wanted && value !== undefined) passed[name] = value;
  }
  return passed;
}

export interface Job {
  options: Pick<VmOptions, 'bind' | 'nvme' | 'shares' | 'user' | 'command'>;
  /** Paths of the modules to load, in this order. */
  modules: readonly string[];
  folder: string;
  environment: Record<string, string>;
  /** What the guest writes at the end of each stream. */
  marker: string;
}

/** The script; init.sh has the functions it calls. */
export function jobScript(job: Job): string {
  const { bind, nvme, shares, user, command } = job.options;
  const become = user === 0 ? [] : ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', '--'];
  const lines = [
    `marker=${shellQuote(job.marker)}`,
    ...job.modules.map((path) => `load_module ${shellQuote(path)}`),
    ...(bind ? EDU_ADDRESSES.map((address) => `bind_vfio ${address}`) : []),
    ...(nvme ? [`bind_vfio ${NVME_ADDRESS}`] : []),
    ...shares.map((path, index) => `mount_share ${shareTag(index)} ${shellQuote(path)}`),
    ...Object.entries(job.environment).map(([name, value]) => `export ${name}=${shellQuote(value)}`),
    ...(user === 0 ? [] : [`chown ${user} "$scratch/home"`]),
    `folder=${shellQuote(job.folder)}`,
    `set -- ${[...become, ...command].map(shellQuote).join(' ')}`,
  ];
  return `${lines.join('\n')}\n`;
}

/** The bytes for the control channel: the script after a line with its length, so that it may contain anything. */
export function jobMessage(job: Job): Buffer {
  const script = Buffer.from(jobScript(job));
  return Buffer.concat([Buffer.from(`${script.length}\n`), script]);
}
