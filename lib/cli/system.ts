/** The system that the commands look at: this machine, or a simulated one. */
import { userInfo } from 'node:os';
import { IommuError } from '../errors';
import type { KernelFiles } from '../kernel';
import { linuxFiles } from '../linux/files';
import { openKernel } from '../open-kernel';

export interface System {
  readonly files: KernelFiles;
  readonly simulated: boolean;
  /** As process.platform has it. */
  readonly platform: string;
  /** Who asks, by name, or by number where there is no name. */
  readonly user: string;
  /** Why the addon, which makes the system calls, cannot be had; undefined when it can. */
  addonProblem(): string | undefined;
}

/** How people start this command, and how root does, who may have another PATH. */
export const SELF = 'npx iommufd';
export const SELF_AS_ROOT = 'sudo env "PATH=$PATH" npx iommufd';

const BACKENDS: readonly string[] = ['', 'auto', 'linux', 'simulated'];

/** IOMMUFD_BACKEND=simulated: the simulated machine; else this one. Throws TypeError for a name that is none. */
export function openSystem(): System {
  const { IOMMUFD_BACKEND: backend = '' } = process.env;
  if (!BACKENDS.includes(backend))
    throw new TypeError(`IOMMUFD_BACKEND is '${backend}': it must be one of auto, linux, simulated`);
  if (backend === 'simulated') return simulatedSystem(openKernel('simulated'));
  return { files: linuxFiles, simulated: false, platform: process.platform, user: userName(), addonProblem };
}

/** A simulated system, which needs no addon. */
export function simulatedSystem(files: KernelFiles): System {
  return { files, simulated: true, platform: 'linux', user: userName(), addonProblem: () => undefined };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // No name in the system's files: a container's user, for example.
    return String(process.getuid?.() ?? 'root');
  }
}

function addonProblem(): string | undefined {
  try {
    openKernel('linux');
    return undefined;
  } catch (error) {
    if (!(error instanceof IommuError)) throw error;
    return error.reason;
  }
}
