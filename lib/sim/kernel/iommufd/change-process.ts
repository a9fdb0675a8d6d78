/** IOAS_CHANGE_PROCESS: whoever calls takes over what another process mapped and paid for. */
import { errno } from '../../../uapi/errno';
import { IOMMU_IOAS_CHANGE_PROCESS } from '../../../uapi/iommufd-ioctls';
import { charge, payerOf, uncharge, type AccountMode, type Task } from './accounting';
import { handler, type Command, type Handler } from './command';
import { Ioas } from './ioas';
import { FileSource } from './page-source';
import type { Pages } from './pages';

/** In the order in which Linux charges. */
const MODES: readonly AccountMode[] = ['none', 'user', 'process'];

/** What all IOAS of an iommufd have mapped; EINVAL where some is no file's: only a file is the same for every process. */
function allPages(objects: Iterable<object>): Set<Pages> | number {
  const found = new Set<Pages>();
  for (const object of objects)
    if (object instanceof Ioas)
      for (const { pages } of object.table.areas) {
        if (!(pages.source instanceof FileSource)) return -errno.EINVAL;
        found.add(pages);
      }
  return found;
}

/** Counts everything for the new process, or nothing. The old one still pays too: one user pays twice for a moment. */
function chargeAll(task: Task, moving: readonly Pages[]): number {
  const payer = payerOf(task);
  const charged: [AccountMode, number][] = [];
  for (const mode of MODES) {
    const pages = moving.reduce((sum, each) => sum + (each.mode === mode ? each.charged : 0), 0);
    const result = pages > 0 ? charge(payer, mode, pages) : 0;
    if (result) {
      for (const [done, count] of charged) uncharge(payer, done, count);
      return result;
    }
    charged.push([mode, pages]);
  }
  return 0;
}

function changeProcess(command: Command<typeof IOMMU_IOAS_CHANGE_PROCESS.struct>): number {
  const { values, file, process } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  const all = allPages(file.objects);
  if (typeof all === 'number') return all;
  const moving = [...all].filter((pages) => pages.paidByOther(process));
  let result = chargeAll(process, moving);
  if (result) return result;
  // Where the old process has ended and paid itself, nothing can be given back: EINVAL, and all the same it is done.
  for (const pages of moving) result = pages.unchargeAll() || result;
  for (const pages of all) pages.changePayer(process);
  return result;
}

export const changeProcessHandlers: readonly Handler[] = [handler(IOMMU_IOAS_CHANGE_PROCESS, changeProcess)];
