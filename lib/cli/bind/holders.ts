/** Programs that have a device open. */
import type { KernelFiles } from '../../kernel';
import type { PciDescription } from '../../sysfs';
import { list, readWord } from '../text-files';

export interface Holder {
  readonly pid: number;
  /** The program's name. */
  readonly name: string;
}

/** For people: 'process 12 (node)'. */
export function holderName({ pid, name }: Holder): string {
  return `process ${pid} (${name})`;
}

/** Who has which of VFIO's files open: those processes that the caller may look into. */
export function findHolders(files: KernelFiles): ReadonlyMap<string, readonly Holder[]> {
  const found = new Map<string, Holder[]>();
  for (const pid of list(files, '/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const folder = `/proc/${pid}`;
    const targets = new Set(list(files, `${folder}/fd`).map((fd) => files.readlink(`${folder}/fd/${fd}`)));
    for (const target of targets) {
      if (typeof target !== 'string' || !target.startsWith('/dev/vfio/')) continue;
      const holder = { pid: Number(pid), name: readWord(files, `${folder}/comm`) ?? '?' };
      found.set(target, [...(found.get(target) ?? []), holder]);
    }
  }
  return found;
}

/** Those of a device: they have its file open, or that of its group. */
export function holdersOf(
  holders: ReturnType<typeof findHolders>,
  { path, iommuGroup }: Pick<PciDescription, 'path' | 'iommuGroup'>,
): Holder[] {
  const own = path === undefined ? [] : (holders.get(path) ?? []);
  const group = iommuGroup === undefined ? [] : (holders.get(`/dev/vfio/${iommuGroup}`) ?? []);
  return [...own, ...group.filter(({ pid }) => !own.some((one) => one.pid === pid))];
}
