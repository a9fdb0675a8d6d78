import { Iommu, IommuError } from '../../lib';
import { O_RDWR } from '../../lib/kernel';
import { backend, EDU, errorOf, kernel, open } from './support';

describe('open', () => {
  test('says which backend answers and why', () => {
    const iommu = open();
    expect(iommu.backend).toBe(backend);
    expect(iommu.reason).toBe('the program asks for it');
    expect(iommu.kernelVersion).toMatch(/Linux \d+\.\d+/);
    expect(iommu.fd).toBeGreaterThanOrEqual(0);
  });

  test('several may be open', () => {
    const [one, two] = [open(), open()];
    expect(one.fd).not.toBe(two.fd);
    expect(one.createAddressSpace().ioasid).toBe(1);
    expect(two.createAddressSpace().ioasid).toBe(1);
  });

  test('finds edu', () => {
    const device = open()
      .devices()
      .find(({ bdf }) => bdf === EDU);
    expect(device).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0x11e8,
      classCode: 0x00ff00,
      driver: 'vfio-pci',
      iommuGroup: expect.any(Number),
      path: expect.stringMatching(/^\/dev\/vfio\/devices\/vfio\d+$/),
    });
  });

  test('a kernel can be handed in', () => {
    using iommu = Iommu.open({ backend: kernel() });
    expect(iommu.backend).toBe(backend);
    expect(iommu.reason).toBe('the program passed this kernel');
    expect(iommu.createAddressSpace().ioasid).toBe(1);
  });

  test('the raw kernel opens it too, and says ENOENT for what is not there', () => {
    const raw = kernel();
    const fd = raw.open('/dev/iommu', O_RDWR);
    expect(fd).toBeGreaterThanOrEqual(0);
    expect(raw.close(fd)).toBe(0);
    expect(raw.close(fd)).toBe(-9);
    expect(raw.open('/dev/no-such-file', O_RDWR)).toBe(-2);
  });

  test('close is idempotent; use after close is EBADF', () => {
    const iommu = open();
    iommu.close();
    iommu.close();
    expect(iommu.closed).toBe(true);
    const bind = { syscall: 'ioctl', request: 'VFIO_DEVICE_BIND_IOMMUFD' };
    for (const [use, where] of [
      [() => iommu.createAddressSpace(), { syscall: 'ioctl', request: 'IOMMU_IOAS_ALLOC' }],
      [() => iommu.createFaultQueue(), { syscall: 'ioctl', request: 'IOMMU_FAULT_QUEUE_ALLOC' }],
      [() => iommu.allocateDma(4096), { syscall: 'mmap', request: undefined }],
      [() => iommu.bind(EDU, { cookie: 1 }), bind],
      [() => iommu.devices(), { syscall: 'readdir', request: undefined }],
      [() => iommu.createMockDevice({ cookie: 1 }), { syscall: 'ioctl', request: 'IOMMU_TEST_CMD' }],
    ] as const) {
      const error = errorOf(use);
      expect(error).toBeInstanceOf(IommuError);
      expect(error).toMatchObject({ code: 'EBADF', errno: -9, reason: 'the Iommu is closed', ...where });
    }
  });

  test('options are an object', () => {
    expect(() => Iommu.open(null as never)).toThrow(new TypeError('Iommu.open takes { backend }, not null'));
    expect(() => Iommu.open('simulated' as never)).toThrow(TypeError);
  });
});
