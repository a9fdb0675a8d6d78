/** What a program is told of a group that it cannot have, or not yet. */
import { Iommu, type IommuError } from '../lib';
import { DmaEngine, Edu, Machine } from '../lib/sim';
import { listGroups } from '../lib/iommu-group';
import { errorOf } from './contract/support';
import { ScriptedKernel } from './scripted-kernel';

const EDU = '0000:00:04.0';
const OTHER = '0000:00:05.0';

function machineWith(driver: string | null): Machine {
  return new Machine({
    devices: {
      [EDU]: { device: new Edu(), group: 3 },
      [OTHER]: { device: new DmaEngine(), group: 3, driver },
      '0000:00:06.0': new Edu(),
    },
  });
}

test('a driver that does DMA blocks its group, and the error says which, and what to do', () => {
  const iommu = Iommu.open({ backend: machineWith('nvme') });
  const [, group] = iommu.groups().sort((one, other) => one.members.length - other.members.length);
  expect(group).toMatchObject({
    id: 3,
    viable: false,
    blockers: [{ bdf: OTHER, driver: 'nvme', use: 'kernel' }],
  });
  const error = errorOf(() => iommu.bind(EDU, { cookie: 1 })) as IommuError;
  expect(error).toMatchObject({ code: 'EPERM', request: 'VFIO_DEVICE_BIND_IOMMUFD' });
  expect(error.hint).toContain(`group 3 is not viable: ${OTHER} is on the driver nvme`);
  const [, command, path] = /(echo \S+) \| sudo tee (\S+)/.exec(error.hint!)!;
  expect(iommu.kernel.writeFile(path, command.slice('echo '.length))).toBeGreaterThan(0);
  expect(iommu.groups()[1]).toMatchObject({ viable: true, blockers: [] });
  iommu.bind(EDU, { cookie: 1 });
});

test.each([
  [null, 'no-driver', true],
  ['pci-stub', 'no-dma', true],
  ['vfio-pci', 'vfio', true],
  ['edu', 'kernel', false],
])('driver %s: %s', (driver, use, viable) => {
  const iommu = Iommu.open({ backend: machineWith(driver) });
  const group = iommu.groups().find(({ id }) => id === 3);
  expect(group).toMatchObject({
    viable,
    members: [
      { bdf: EDU, use: 'vfio' },
      { bdf: OTHER, use },
    ],
  });
  iommu.close();
  expect(errorOf(() => iommu.groups())).toMatchObject({ code: 'EBADF' });
});

test('a driver of VFIO’s for one device is one by its file; a device without a group is in none', () => {
  const kernel = new ScriptedKernel();
  const bdf = '0000:01:00.0';
  const root = '/sys/bus/pci/devices';
  kernel.directories.set(root, [bdf, '0000:02:00.0']);
  kernel.links.set(`${root}/${bdf}/driver`, '../../drivers/mlx5_vfio_pci');
  kernel.links.set(`${root}/${bdf}/iommu_group`, '../../kernel/iommu_groups/12');
  kernel.directories.set(`${root}/${bdf}/vfio-dev`, ['vfio3']);
  expect(listGroups(kernel, [])).toMatchObject([{ id: 12, viable: true, members: [{ bdf, use: 'vfio' }] }]);
});
