/** The ioctls on HWPT objects: IOMMU_HWPT_ALLOC and IOMMU_HWPT_INVALIDATE. */
import { errno } from '../../../uapi/errno';
import * as rows from '../../../uapi/iommufd-ioctls';
import { IOMMU_HWPT_DATA_NONE, IOMMU_HWPT_FAULT_ID_VALID } from '../../../uapi/iommufd';
import { PAGE_SIZE } from '../user-memory';
import { copyStruct, handler, userData, type Command, type Handler } from './command';
import { IommufdDevice } from './device';
import { FaultObject } from './fault';
import { HwptNested, HwptPaging, type Hwpt } from './hwpt';
import { Ioas } from './ioas';
import { IommufdObject } from './object';
import { Viommu } from './viommu';

/** Most entries one IOMMU_HWPT_INVALIDATE takes. */
const MOST_ENTRIES = 1 << 19;

function alloc(command: Command<typeof rows.IOMMU_HWPT_ALLOC.struct>): number {
  const { values, file } = command;
  if (values.__reserved) return -errno.EOPNOTSUPP;
  if ((values.data_type === IOMMU_HWPT_DATA_NONE) !== (values.data_len === 0)) return -errno.EINVAL;
  const device = file.objects.get(values.dev_id, IommufdDevice);
  if (!device) return -errno.ENOENT;
  const target = file.objects.get(values.pt_id, IommufdObject);

  const data = userData(command.memory, values.data_type, values.data_len, values.data_uptr);
  let hwpt: Hwpt | number;
  if (target instanceof Ioas) {
    hwpt = HwptPaging.create(target, device, values.flags, data.length > 0 ? data : undefined);
    const result = typeof hwpt === 'number' ? 0 : (hwpt as HwptPaging).fill();
    if (result) {
      (hwpt as HwptPaging).destroy();
      return result;
    }
  } else if (target instanceof HwptPaging) {
    hwpt = HwptNested.create(target, device, values.flags, data);
  } else if (target instanceof Viommu) {
    hwpt = HwptNested.createOn(target, device, values.flags, data);
  } else {
    return -errno.EINVAL;
  }
  if (typeof hwpt === 'number') return hwpt;

  if (values.flags & IOMMU_HWPT_FAULT_ID_VALID) {
    const fault = file.objects.get(values.fault_id, FaultObject);
    if (!fault) {
      hwpt.destroy();
      return -errno.ENOENT;
    }
    hwpt.fault = fault;
    fault.users++;
  }
  file.objects.add(hwpt);
  return command.respond({ out_hwpt_id: hwpt.id });
}

function invalidate(command: Command<typeof rows.IOMMU_HWPT_INVALIDATE.struct>): number {
  const { values, file, memory } = command;
  const answer = (result: number, done: number) => command.respond({ entry_num: done }) || result;
  if (values.__reserved) return answer(-errno.EOPNOTSUPP, 0);
  const { entry_num: count, entry_len: length } = values;
  if (count && (!values.data_uptr || !length || length > PAGE_SIZE || count > MOST_ENTRIES))
    return answer(-errno.EINVAL, 0);
  const hwpt = file.objects.get(values.hwpt_id, IommufdObject);
  if (!hwpt) return answer(-errno.ENOENT, 0);
  const at = (index: number) => values.data_uptr + BigInt(index * length);
  if (hwpt instanceof Viommu) {
    const copy = (index: number, size: number) => copyStruct(memory.mapped(at(index), length), length, size);
    const entries = { type: values.data_type, count, copy };
    const { result, done } = hwpt.part.invalidate?.(entries) ?? { result: -errno.EOPNOTSUPP, done: 0 };
    return answer(result, done);
  }
  if (!(hwpt instanceof HwptNested)) return answer(-errno.EINVAL, 0);
  if (!hwpt.domain.supports(values.data_type)) return answer(-errno.EINVAL, 0);
  if (count && length !== hwpt.domain.entrySize) return answer(-errno.EINVAL, 0);
  for (let done = 0; done < count; done++) {
    const entry = memory.read(at(done), length);
    const result = entry ? hwpt.domain.invalidate(entry) : -errno.EFAULT;
    if (result) return answer(result, done);
  }
  return answer(0, count);
}

export const hwptHandlers: readonly Handler[] = [
  handler(rows.IOMMU_HWPT_ALLOC, alloc),
  handler(rows.IOMMU_HWPT_INVALIDATE, invalidate),
];
