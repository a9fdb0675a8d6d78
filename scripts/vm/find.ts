// What a guest needs from the host: QEMU and a kernel image. What is missing is an error that says how to get it.
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join, relative, resolve } from 'node:path';

/** Something the guest cannot start without; the message ends with what to do. */
export class SetupError extends Error {
  override name = 'SetupError';
}

export type Environment = Readonly<Record<string, string | undefined>>;

const QEMU = 'qemu-system-x86_64';
const QEMU_HINT = 'Install it:\n  apt-get install --no-install-recommends qemu-system-x86';
/** From dist/scripts/vm, where this runs: in a clone, or where the package is installed. */
const BUILDER = relative(process.cwd(), join(__dirname, '../../../scripts/vm/kernel'));
const KERNEL_HINT = `Build one (5 to 10 minutes on 2 cores):\n  ${BUILDER}`;

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * QEMU's program: the one asked for, else the one on PATH.
 * @throws SetupError when there is none
 */
export function findQemu(asked: string | undefined, environment: Environment): string {
  const name = asked ?? QEMU;
  if (name.includes('/')) {
    if (isProgram(name)) return name;
    throw new SetupError(`QEMU not found: ${name} is not a program. ${QEMU_HINT}`);
  }
  const folders = (environment.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  const found = folders.map((folder) => join(folder, name)).find(isProgram);
  if (found === undefined) throw new SetupError(`QEMU not found: no ${name} on PATH. ${QEMU_HINT}`);
  return found;
}

/** The folder that scripts/vm/kernel builds into. */
export function cacheFolder(environment: Environment): string {
  const cache = environment.XDG_CACHE_HOME || join(environment.HOME || homedir(), '.cache');
  return join(cache, 'iommufd');
}

function newestImage(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const built = (name: string) => /^linux-\d/.test(name) && existsSync(join(folder, name, 'bzImage'));
  const versions = readdirSync(folder).filter(built);
  versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const newest = versions.at(-1);
  return newest === undefined ? undefined : join(folder, newest, 'bzImage');
}

/**
 * The guest's kernel image: the one asked for, else $IOMMUFD_VM_KERNEL, else the newest in the cache folder.
 * @returns its absolute path
 * @throws SetupError when there is none, or the one named does not exist
 */
export function findKernel(asked: string | undefined, environment: Environment): string {
  const named = asked ?? (environment.IOMMUFD_VM_KERNEL || undefined);
  if (named !== undefined) {
    if (existsSync(named)) return resolve(named);
    const source = asked === undefined ? 'IOMMUFD_VM_KERNEL' : '--kernel';
    throw new SetupError(
      `Guest kernel not found: ${source} names ${named}, which does not exist. ${KERNEL_HINT}`,
    );
  }
  const folder = cacheFolder(environment);
  const cached = newestImage(folder);
  if (cached !== undefined) return cached;
  throw new SetupError(
    `Guest kernel not found: no --kernel, no IOMMUFD_VM_KERNEL, none in ${folder}. ${KERNEL_HINT}`,
  );
}

/**
 * The files of modules that were built with an image.
 * @throws SetupError when one is not there
 */
export function findModuleFiles(kernel: string, names: readonly string[]): string[] {
  const folder = join(dirname(kernel), 'modules');
  return names.map((name) => {
    const path = join(folder, `${name}.ko`);
    if (existsSync(path)) return path;
    throw new SetupError(`Module not found: --module ${name}, and there is no ${path}. ${KERNEL_HINT}`);
  });
}

/** The folder of modules built with an image, beside it, when there is one. */
export function findModules(kernel: string): string | undefined {
  const modules = join(dirname(kernel), 'modules');
  return existsSync(modules) ? modules : undefined;
}
