/** A simulated kernel with one rule that is not Linux's is caught, whichever rule it is. */
import { DirtyBitmap } from '../../lib/sim/kernel/iommufd/dirty-bitmap';
import { IommufdDevice } from '../../lib/sim/kernel/iommufd/device';
import { FaultObject } from '../../lib/sim/kernel/iommufd/fault';
import { HwptPaging } from '../../lib/sim/kernel/iommufd/hwpt';
import { UserSource } from '../../lib/sim/kernel/iommufd/page-source';
import { IoPageTable } from '../../lib/sim/kernel/iommufd/io-page-table';
import { ObjectTable } from '../../lib/sim/kernel/iommufd/object';
import { MockPagingDomain } from '../../lib/sim/kernel/mock/domain';
import { VirtualConfig } from '../../lib/sim/kernel/vfio/config';
import { errno, IOMMU_HWPT_ALLOC_NEST_PARENT, IOMMU_HWPT_FAULT_ID_VALID } from '../../lib/uapi';
import { compareWithBroken, replaced, type Break } from './peers';

const FAULT_AND_NEST = IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_FAULT_ID_VALID;

/** Linux's rule, and how to break it. */
const rules: readonly (readonly [string, Break])[] = [
  [
    'an object in use cannot be destroyed',
    replaced(
      ObjectTable.prototype,
      'destroy',
      (original) =>
        function (id) {
          const result = original.call(this, id);
          return result === -errno.EBUSY ? 0 : result;
        },
    ),
  ],
  [
    'UNMAP that cuts an area has lost the areas before it',
    replaced(
      IoPageTable.prototype,
      'unmap',
      (original) =>
        function (start, last) {
          const edges = [this.areas.first(start, start), this.areas.first(last, last)];
          if (edges.some((area) => area && (area.start < start || area.last > last)))
            return { result: -errno.ENOENT, unmapped: 0n };
          return original.call(this, start, last);
        },
    ),
  ],
  [
    'memory is pinned when a domain needs it, not before',
    replaced(
      IoPageTable.prototype,
      'map',
      (original) =>
        function (slices, length, iova, protection) {
          const absent = slices.some(
            ({ pages: { source }, startByte }) =>
              source instanceof UserSource &&
              source.memory.pinCount(source.address + startByte) === undefined,
          );
          return absent ? BigInt(-errno.EFAULT) : original.call(this, slices, length, iova, protection);
        },
    ),
  ],
  [
    'reserved addresses are taken out of what IOVA_RANGES reports',
    replaced(IoPageTable.prototype, 'reserve', () => () => 0),
  ],
  ['type1 unmaps parts of mappings', replaced(IoPageTable.prototype, 'cut', () => () => 0)],
  [
    'responses end at the first that is wrong',
    replaced(
      FaultObject.prototype,
      'write',
      (original) =>
        function (bytes) {
          const result = original.call(this, bytes);
          return result > 0 ? bytes.length : result;
        },
    ),
  ],
  [
    'detaching answers the faults of the attachment',
    replaced(FaultObject.prototype, 'answerFaultsOf', () => () => {}),
  ],
  [
    'a second attach replaces the first',
    replaced(
      IommufdDevice.prototype,
      'attach',
      (original) =>
        function (pasid, ptId, replacing) {
          return replacing ? -errno.EBUSY : original.call(this, pasid, ptId, replacing);
        },
    ),
  ],
  [
    'a parent table cannot report faults',
    replaced(
      HwptPaging,
      'create',
      (original) =>
        function (ioas, device, flags, data) {
          const both = (flags & FAULT_AND_NEST) === FAULT_AND_NEST;
          return original.call(this, ioas, device, both ? flags & ~IOMMU_HWPT_FAULT_ID_VALID : flags, data);
        },
    ),
  ],
  [
    'a dirty page sets all of its bits',
    replaced(
      DirtyBitmap.prototype,
      'set',
      (original) =>
        function (iova, length) {
          original.call(this, iova, length > 1n ? length / 2n : length);
        },
    ),
  ],
  ['unmapped is unmapped in the table too', replaced(MockPagingDomain.prototype, 'translate', () => () => 0)],
  [
    "configuration space hides what is the kernel's",
    replaced(
      VirtualConfig.prototype,
      'read',
      () =>
        function (offset, into) {
          this.pci.config.readBytes(offset, into);
        },
    ),
  ],
];

test.each(rules)('%s', async (_rule, breakIt) => {
  const { differences } = await compareWithBroken(breakIt);
  expect(differences).toBeGreaterThan(0);
});
