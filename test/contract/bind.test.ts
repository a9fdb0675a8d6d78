import { IommuError, type Device } from '../../lib';
import { FACTORIAL, IDENTIFICATION, LIVENESS, STATUS } from './edu';
import { EDU, errorOf, open, openEdu, until } from './support';

describe('bind', () => {
  test('by address, short address, path and description', () => {
    const iommu = open();
    const description = iommu.devices().find(({ bdf }) => bdf === EDU)!;
    for (const target of [EDU, '00:04.0', description.path!, description]) {
      const device = iommu.bind(target, { cookie: 0xffff_ffff_ffff_ffffn });
      expect(device).toMatchObject({
        bdf: EDU,
        path: description.path,
        cookie: 2n ** 64n - 1n,
        closed: false,
      });
      expect(device.id).toBeGreaterThan(0);
      expect(iommu.bound).toEqual([device]);
      device.close();
      expect(iommu.bound).toEqual([]);
    }
  });

  test('the cookie is checked', () => {
    const iommu = open();
    expect(() => iommu.bind(EDU, {} as { cookie: bigint })).toThrow(TypeError);
    expect(() => iommu.bind(EDU, { cookie: -1 })).toThrow(RangeError);
    expect(() => iommu.bind(EDU, { cookie: 2n ** 64n })).toThrow(RangeError);
    expect(() => iommu.bind(EDU, { cookie: 2 ** 53 })).toThrow(RangeError);
    expect(() => iommu.bind(EDU, { cookie: '1' as unknown as bigint })).toThrow(TypeError);
    iommu.bind(EDU, { cookie: 5 });
    const error = errorOf(() => iommu.bind('0000:00:1e.7', { cookie: 5n }));
    expect(error).toMatchObject({
      code: 'EEXIST',
      request: 'VFIO_DEVICE_BIND_IOMMUFD',
      reason: `cookie 0x5 already names ${EDU}`,
    });
  });

  test('an unknown address is ENODEV and names the known ones', () => {
    const error = errorOf(() => open().bind('0000:00:1e.7', { cookie: 1 })) as IommuError;
    expect(error).toBeInstanceOf(IommuError);
    expect(error).toMatchObject({ code: 'ENODEV', errno: -19, syscall: 'open' });
    expect(error.path).toBe('/sys/bus/pci/devices/0000:00:1e.7');
    expect(error.hint).toContain(EDU);
  });

  test('a path that is not there is ENOENT', () => {
    const error = errorOf(() => open().bind('/dev/vfio/devices/vfio99', { cookie: 1 }));
    expect(error).toMatchObject({ code: 'ENOENT', syscall: 'open', path: '/dev/vfio/devices/vfio99' });
  });

  test.each(['/dev/null', '/dev/vfio/vfio', '/dev/vfio/devices/', '/dev/iommu', '/tmp', 'edu', ''])(
    '%p is no VFIO device file, and is not opened',
    (target) => {
      const iommu = open();
      const opened = jest.spyOn(iommu.kernel, 'open');
      expect(() => iommu.bind(target, { cookie: 1 })).toThrow(
        new TypeError(
          `'${target}' is neither a PCI address such as 0000:00:04.0, nor a UUID, nor a VFIO device file such as /dev/vfio/devices/vfio0`,
        ),
      );
      expect(opened).not.toHaveBeenCalled();
      opened.mockRestore();
    },
  );

  test('the same device twice is EBUSY', () => {
    const { iommu } = openEdu(1);
    const [{ path }] = iommu.bound as Device[];
    for (const target of [EDU, path, path.replace('/vfio/', '//vfio/./')])
      expect(errorOf(() => iommu.bind(target, { cookie: 2 }))).toMatchObject({
        code: 'EBUSY',
        request: 'VFIO_DEVICE_BIND_IOMMUFD',
      });
  });

  test('a device that somebody else has is EINVAL with the cause, and free again after their close', () => {
    const { iommu: owner } = openEdu();
    const other = open();
    const error = errorOf(() => other.bind(EDU, { cookie: 2 })) as IommuError;
    expect(error).toMatchObject({ code: 'EINVAL', request: 'VFIO_DEVICE_BIND_IOMMUFD', syscall: 'ioctl' });
    expect(error.hint).toContain('already bound');
    // The RFC would have both; VFIO has one at a time.
    expect(error.hint).toContain('Linux binds a device to one iommufd at a time');
    owner.close();
    expect(other.bind(EDU, { cookie: 2 }).bdf).toBe(EDU);
  });

  test('a closed device says so', () => {
    const { device } = openEdu();
    const bar = device.region('bar0');
    device.close();
    device.close();
    expect(() => device.info()).toThrow(`VFIO_DEVICE_GET_INFO: EBADF: ${EDU} is closed`);
    expect(() => device.region('bar0')).toThrow('EBADF');
    expect(() => device.hardwareInfo()).toThrow('EBADF');
    expect(() => bar.read32(0)).toThrow(`pread: EBADF: bar0 of ${EDU} is closed`);
    expect(() => bar.write64(0, 0n)).toThrow(`pwrite: EBADF: bar0 of ${EDU} is closed`);
    expect(() => bar.read(0, new Uint8Array(4))).toThrow(`pread: EBADF: bar0 of ${EDU} is closed`);
    expect(() => bar.write(0, new Uint8Array(4))).toThrow(`pwrite: EBADF: bar0 of ${EDU} is closed`);
  });

  test('info and hardware info', () => {
    const { device } = openEdu();
    expect(device.info()).toMatchObject({ pci: true, regions: 9, interrupts: 5 });
    const info = device.hardwareInfo();
    expect(info).toMatchObject({ type: 'intel-vtd', dataType: 1, maxPasidLog2: 0 });
    expect(info.vtd!.capReg).toBeGreaterThan(0n);
    // ECAP_REG.SMTS, bit 43: scalable mode.
    expect((info.vtd!.ecapReg >> 43n) & 1n).toBe(1n);
  });
});

describe('regions', () => {
  test('registers, in the widths edu takes', async () => {
    const { device } = openEdu();
    const bar = device.region('bar0');
    expect(device.region(0)).toBe(bar);
    expect(bar.size).toBe(1 << 20);
    expect(bar.read32(IDENTIFICATION) >>> 0).toBe(0x010000ed);
    bar.write32(LIVENESS, 0x1234_5678);
    expect(bar.read32(LIVENESS)).toBe(0xedcb_a987);
    bar.write32(FACTORIAL, 10);
    await until(() => (bar.read32(STATUS) & 1) === 0);
    expect(bar.read32(FACTORIAL)).toBe(3_628_800);
    bar.write64(0x80, 0x1122_3344_5566_7788n);
    expect(bar.read64(0x80)).toBe(0x1122_3344_5566_7788n);
  });

  test('configuration space, in every width and in bulk', () => {
    const { device } = openEdu();
    const config = device.region('config');
    expect(config.mapped).toBe(false);
    expect(config.read8(0)).toBe(0x34);
    expect(config.read16(0)).toBe(0x1234);
    expect(config.read32(0)).toBe(0x11e8_1234);
    expect(config.read64(0) & 0xffff_ffffn).toBe(0x11e8_1234n);
    const bytes = new Uint8Array(64);
    config.read(0, bytes);
    expect([...bytes.subarray(0, 4)]).toEqual([0x34, 0x12, 0xe8, 0x11]);
    device.enableBusMaster();
    expect(config.read16(4) & 4).toBe(4);
    config.write(4, new Uint8Array([config.read8(4) & ~4]));
    expect(config.read16(4) & 4).toBe(0);
  });

  test('what is outside or misaligned is refused before anything is touched', () => {
    const { device } = openEdu();
    const bar = device.region('bar0');
    for (const access of [
      () => bar.read32(2),
      () => bar.read64(4),
      () => bar.read32(bar.size),
      () => bar.read32(-4),
      () => bar.read32(0.5),
      () => bar.write32(0, 2 ** 32),
      () => bar.write32(0, -1),
      () => bar.write64(0, -1n),
      () => bar.write64(0, 2n ** 64n),
      () => bar.read(bar.size - 4, new Uint8Array(8)),
    ])
      expect(access).toThrow(RangeError);
    for (const access of [
      () => bar.read32('0' as unknown as number),
      () => bar.write32(0, 1n as unknown as number),
      () => bar.read(0, [0] as unknown as Uint8Array),
    ])
      expect(access).toThrow(TypeError);
  });

  test('what is not there is an error', () => {
    const { device } = openEdu();
    expect(errorOf(() => device.region('bar3'))).toMatchObject({ code: 'ENODEV' });
    expect(errorOf(() => device.region(77))).toMatchObject({
      code: 'EINVAL',
      request: 'VFIO_DEVICE_GET_REGION_INFO',
    });
    for (const which of ['bar9', 1.5, -1, 2 ** 32, NaN, undefined])
      expect(() => device.region(which as 'bar0')).toThrow(RangeError);
  });

  test('a region can be closed and opened again', () => {
    const { device } = openEdu();
    const bar = device.region('bar0');
    bar.close();
    bar.close();
    expect(() => bar.read32(0)).toThrow('EBADF');
    expect(device.region('bar0').read32(IDENTIFICATION)).toBe(0x010000ed);
  });

  test('memory decoding stays on while a BAR is mapped, and a BAR opened without it is an error, not a crash', () => {
    const { device } = openEdu();
    const bar = device.region('bar0');
    const config = device.region('config');
    const command = config.read16(4);
    expect(bar.mapped).toBe(true);
    expect(errorOf(() => config.write16(4, command & ~2))).toMatchObject({
      code: 'EBUSY',
      reason: `${EDU} must keep decoding memory while its BARs are mapped`,
    });
    bar.close();
    config.write16(4, command & ~2);
    expect(errorOf(() => device.region('bar0').read32(0))).toMatchObject({ code: 'EIO', syscall: 'pread' });
    device.region('bar0').close();
    config.write16(4, command);
    expect(device.region('bar0').read32(IDENTIFICATION)).toBe(0x010000ed);
  });
});
