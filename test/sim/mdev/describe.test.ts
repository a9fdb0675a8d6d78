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

test('a virtual machine has its devices, by cookie, and its vPASIDs', () => {
  const machine = machineWith();
  using iommu = Iommu.open({ backend: machine });
  const hardware = machine.createVm();
  const vm = iommu.openVm(hardware.fd);
  const device = bindNew(iommu, 'enqcmd', 8n);
  vm.addDevice(device);
  vm.enablePasidTranslation();
  const space = iommu.createAddressSpace({ pasid: true });
  device.attach(space, { pasid: 3 });
  vm.mapPasid(3, space);
  const state = iommu.describe();
  expect(state.virtualMachines).toEqual([
    { fd: hardware.fd, devices: ['0x8'], translatesPasids: true, mapped: [{ pasid: 3, ioasid: 1 }] },
  ]);
  expect(JSON.parse(JSON.stringify(state))).toEqual(state);
});
