/** IOMMU_OPTION: what can be set of an iommufd (object 0) and of an IOAS. */
import { errno } from '../../../uapi/errno';
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
} from '../../../uapi/iommufd';
import { IOMMU_OPTION } from '../../../uapi/iommufd-ioctls';
import { isCapable } from '../credentials';
import { handler, type Command, type Handler } from './command';
import { Ioas } from './ioas';

type OptionCommand = Command<typeof IOMMU_OPTION.struct>;

/** Whose limit pinned memory counts against: the user's (0) or the process's (1). */
function rlimitMode(command: OptionCommand): number {
  const { values, file, process } = command;
  if (values.object_id) return -errno.EOPNOTSUPP;
  if (values.op === IOMMU_OPTION_OP_GET) return command.respond({ val64: file.accountsPerProcess ? 1 : 0 });
  if (values.op !== IOMMU_OPTION_OP_SET) return -errno.EOPNOTSUPP;
  if (!isCapable(process.credentials, 'CAP_SYS_RESOURCE')) return -errno.EPERM;
  // Everything that an iommufd has pinned is counted in one way.
  if (file.objects.size > 0) return -errno.EBUSY;
  if (values.val64 > 1n) return -errno.EINVAL;
  file.accountsPerProcess = values.val64 === 1n;
  return 0;
}

/** Whether the tables of an IOAS have entries larger than a page. */
function hugePages(command: OptionCommand): number {
  const { values, file } = command;
  const table = file.objects.get(values.object_id, Ioas)?.table;
  if (!table) return -errno.ENOENT;
  if (values.op === IOMMU_OPTION_OP_GET) return command.respond({ val64: table.largePages ? 1 : 0 });
  if (values.op !== IOMMU_OPTION_OP_SET) return -errno.EOPNOTSUPP;
  if (values.val64 === 0n) return table.disableLargePages();
  if (values.val64 !== 1n) return -errno.EINVAL;
  table.enableLargePages();
  return 0;
}

function option(command: OptionCommand): number {
  if (command.values.__reserved) return -errno.EOPNOTSUPP;
  switch (command.values.option_id) {
    case IOMMU_OPTION_RLIMIT_MODE:
      return rlimitMode(command);
    case IOMMU_OPTION_HUGE_PAGES:
      return hugePages(command);
    default:
      return -errno.EOPNOTSUPP;
  }
}

export const optionHandlers: readonly Handler[] = [handler(IOMMU_OPTION, option)];
