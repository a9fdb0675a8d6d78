/** Programs that have a device open. */
import type { KernelFiles } from '../../kernel';
import type { PciDescription } from '../../sysfs';
import { list, readWord } from '../text-files';

export interface Holder {
  readonly pid: number;
  /** The program's name. */
  readonly name: string;
}

/** Processes that have the device file, or the file of its group, open: those that the caller may look into. */
export function holdersOf(files: KernelFiles, { path, iommuGroup }: PciDescription): Holder[] {
  const paths = [path, iommuGroup === undefined ? undefined : `/dev/vfio/${iommuGroup}`];
  const isOpen = (folder: string) =>
    list(files, folder).some((fd) => {
      const target = files.readlink(`${folder}/${fd}`);
      return typeof target === 'string' && paths.includes(target);
    });
  return list(files, '/proc')
    .filter((name) => /^\d+$/.test(name) && isOpen(`/proc/${name}/fd`))
    .map((name) => ({ pid: Number(name), name: readWord(files, `/proc/${name}/comm`) ?? '?' }));
}
