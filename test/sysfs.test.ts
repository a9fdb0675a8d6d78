import { listDevices, resolveDevice } from '../lib/sysfs';
import { ScriptedKernel } from './scripted-kernel';

const ROOT = '/sys/bus/pci/devices';

function machine() {
  const kernel = new ScriptedKernel();
  const add = (bdf: string, values: { driver?: string; group?: number; cdev?: string }) => {
    const names = kernel.directories.get(ROOT) ?? [];
    kernel.directories.set(ROOT, [...names, bdf].sort());
    kernel.texts.set(`${ROOT}/${bdf}/vendor`, '0x1234\n');
    kernel.texts.set(`${ROOT}/${bdf}/device`, '0x11e8\n');
    kernel.texts.set(`${ROOT}/${bdf}/class`, '0x00ff00\n');
    if (values.driver) kernel.links.set(`${ROOT}/${bdf}/driver`, `../../../bus/pci/drivers/${values.driver}`);
    if (values.group !== undefined)
      kernel.links.set(`${ROOT}/${bdf}/iommu_group`, `../../../kernel/iommu_groups/${values.group}`);
    if (values.cdev) kernel.directories.set(`${ROOT}/${bdf}/vfio-dev`, [values.cdev]);
  };
  add('0000:00:04.0', { driver: 'vfio-pci', group: 3, cdev: 'vfio0' });
  add('0000:00:1f.2', { driver: 'ahci', group: 9 });
  return { kernel, add };
}

describe('devices in sysfs', () => {
  test('are described', () => {
    const { kernel } = machine();
    expect(listDevices(kernel)).toEqual([
      {
        bdf: '0000:00:04.0',
        vendorId: 0x1234,
        deviceId: 0x11e8,
        classCode: 0xff00,
        driver: 'vfio-pci',
        iommuGroup: 3,
        path: '/dev/vfio/devices/vfio0',
      },
      {
        bdf: '0000:00:1f.2',
        vendorId: 0x1234,
        deviceId: 0x11e8,
        classCode: 0xff00,
        driver: 'ahci',
        iommuGroup: 9,
        path: undefined,
      },
    ]);
    expect(listDevices(new ScriptedKernel())).toEqual([]);
  });

  test('are found by full and short address, by path and by description', () => {
    const { kernel } = machine();
    const path = '/dev/vfio/devices/vfio0';
    for (const target of ['0000:00:04.0', '00:04.0', path, listDevices(kernel)[0]])
      expect(resolveDevice(kernel, target)).toMatchObject({ path, description: { bdf: '0000:00:04.0' } });
    expect(resolveDevice(kernel, '/dev/vfio/devices/vfio9').description).toBeUndefined();
  });

  test('an unknown address names the known ones', () => {
    const { kernel } = machine();
    expect(() => resolveDevice(kernel, '0000:00:09.0')).toThrow(
      `open ${ROOT}/0000:00:09.0: ENODEV: there is no PCI device 0000:00:09.0 ` +
        '(is the address right? known devices: 0000:00:04.0, 0000:00:1f.2)',
    );
  });

  test('a long list of known devices is cut', () => {
    const { kernel, add } = machine();
    for (let i = 0; i < 20; i++) add(`0000:01:${(i + 10).toString(16).padStart(2, '0')}.0`, {});
    expect(() => resolveDevice(kernel, '0000:00:09.0')).toThrow('and 6 more)');
  });

  test('a device with another driver says how to bind it to vfio-pci', () => {
    const { kernel, add } = machine();
    const folder = `${ROOT}/0000:00:1f.2`;
    expect(() => resolveDevice(kernel, '0000:00:1f.2')).toThrow(
      'ENODEV: 0000:00:1f.2 is bound to the driver ahci, not to vfio-pci (bind it: sudo modprobe vfio-pci && ' +
        `echo vfio-pci | sudo tee ${folder}/driver_override && ` +
        `echo 0000:00:1f.2 | sudo tee ${folder}/driver/unbind && ` +
        'echo 0000:00:1f.2 | sudo tee /sys/bus/pci/drivers_probe)',
    );
    add('0000:00:05.0', { group: 4 });
    const error = () => resolveDevice(kernel, '0000:00:05.0');
    expect(error).toThrow('0000:00:05.0 is bound to no driver, not to vfio-pci');
    expect(error).not.toThrow('unbind');
  });

  test('no IOMMU and no cdev are told apart', () => {
    const { kernel, add } = machine();
    add('0000:00:06.0', { driver: 'e1000e' });
    add('0000:00:07.0', { driver: 'vfio-pci', group: 7 });
    add('0000:00:08.0', { driver: 'vfio-pci', group: 8, cdev: 'noiommu-vfio1' });
    expect(() => resolveDevice(kernel, '0000:00:06.0')).toThrow('intel_iommu=on');
    expect(() => resolveDevice(kernel, '0000:00:07.0')).toThrow('CONFIG_VFIO_DEVICE_CDEV');
    // VFIO gives it away, but no mapping would be what its DMA goes through.
    expect(() => resolveDevice(kernel, '0000:00:08.0')).toThrow('its DMA goes to physical addresses');
  });

  test('anything else is a TypeError', () => {
    const { kernel } = machine();
    for (const target of ['edu', '', '0000:00:04', 7 as unknown as string, undefined as unknown as string])
      expect(() => resolveDevice(kernel, target)).toThrow(TypeError);
  });
});
