/** describe() and the picture have mediated devices, and what they are a part of. */
import { Iommu } from '../../../lib';
import { modelOf } from '../../../lib/cli/graph/model';
import { bindNew, machineWith, PARENT } from './parent';

test('a mediated device is named by its UUID, and is a part of its parent', () => {
  using iommu = Iommu.open({ backend: machineWith() });
  const device = bindNew(iommu, 'pasid', 7n);
  device.attach(iommu.createAddressSpace({ pasid: true }), { pasid: 42 });
  const state = iommu.describe();
  expect(state.devices).toEqual([
    {
      ...{ cookie: '0x7', name: device.uuid, parent: PARENT, id: device.id, fd: device.fd, group: null },
      attached: [{ pasid: 42, ioasid: 1 }],
    },
  ]);
  expect(state.groups).toEqual([]);
  const box = modelOf(state).boxes.find(({ title }) => title === device.uuid);
  expect(box?.rows.map(({ text }) => text)).toEqual([
    `part of ${PARENT}`,
    'cookie 0x7',
    'PASID 42 → IOASID 1',
  ]);
});
