/** Hot reset: who is told what shares a bus, and who may reset it. */
import * as uapi from '../../lib/uapi';
import { Calls, code } from './calls';
import { kernelWithBuses, PAIR, SINGLE } from './edus';
import { EDU, until } from './support';

const calls = new Calls(kernelWithBuses());
const { kernel } = calls;
const CONFIG = uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;
const { VFIO_PCI_DEVID_NOT_OWNED: NOT_OWNED, VFIO_PCI_DEVID_OWNED: OWNED } = uapi;

beforeEach(() => calls.open());
afterEach(() => calls.close());
afterAll(() => calls.free());

function bound(bdf: string): { vfio: number; id: number } {
  const vfio = calls.vfio(bdf);
  return { vfio, id: calls.bind(vfio) };
}

function info(vfio: number, argsz = 64) {
  const bytes = new Uint8Array(64);
  bytes.set(uapi.vfio_pci_hot_reset_info.encode({ argsz }));
  const result = code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.request, bytes));
  const { flags, count } = uapi.vfio_pci_hot_reset_info.decode(bytes);
  const { size } = uapi.vfio_pci_dependent_device;
  const devices = Array.from({ length: result === 0 ? count : 0 }, (_, i) => {
    const { devid, segment, bus, devfn } = uapi.vfio_pci_dependent_device.decode(bytes, 12 + i * size);
    return { devid, segment, bus, devfn };
  });
  return { result, flags, count, devices };
}

function hotReset(vfio: number, values: Parameters<typeof uapi.vfio_pci_hot_reset.encode>[0] = {}) {
  return calls.call(vfio, uapi.VFIO_DEVICE_PCI_HOT_RESET, values).code;
}

function giveTo(bdf: string, driver: string): void {
  const folder = `/sys/bus/pci/devices/${bdf}`;
  kernel.writeFile(`${folder}/driver/unbind`, bdf);
  kernel.writeFile(`${folder}/driver_override`, driver);
  kernel.writeFile('/sys/bus/pci/drivers_probe', bdf);
}

function canReset(vfio: number): boolean {
  const { flags } = calls.call(vfio, uapi.VFIO_DEVICE_GET_INFO, {}).out;
  return (flags & uapi.VFIO_DEVICE_FLAGS_RESET) !== 0;
}

test('nothing resets the root bus', () => {
  const { vfio } = bound(EDU);
  expect(info(vfio, 11)).toMatchObject({ result: 'EINVAL' });
  expect(info(vfio)).toMatchObject({ result: 'ENODEV', count: 0 });
  expect(hotReset(vfio, { argsz: 11 })).toBe('EINVAL');
  expect(hotReset(vfio, { flags: 1 })).toBe('EINVAL');
  expect(hotReset(vfio, { count: 1 })).toBe('EINVAL');
  expect(hotReset(vfio)).toBe('ENODEV');
  expect(canReset(vfio)).toBe(false);
});

describe('a device alone on its bus', () => {
  test('is told of itself, once there is room', () => {
    const { vfio, id } = bound(SINGLE);
    for (const argsz of [12, 19])
      expect(info(vfio, argsz)).toMatchObject({ result: 'ENOSPC', flags: 0, count: 1 });
    const devices = [{ devid: id, segment: 0, bus: 1, devfn: 0 }];
    for (const argsz of [20, 64])
      expect(info(vfio, argsz)).toEqual({ result: 0, flags: 3, count: 1, devices });
  });

  test('is reset with the bus, by either ioctl, and keeps what the kernel and the user set up', async () => {
    const { vfio } = bound(SINGLE);
    const read = (offset: number, length: number) => {
      const bytes = new Uint8Array(length);
      kernel.pread(vfio, bytes, offset);
      return [...bytes];
    };
    expect(canReset(vfio)).toBe(true);
    kernel.pwrite(vfio, new Uint8Array([6, 0]), CONFIG + 4);
    const event = calls.eventfd();
    const irqs = new Uint8Array(24);
    const flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
    irqs.set(uapi.vfio_irq_set.encode({ argsz: 24, flags, index: uapi.VFIO_PCI_MSI_IRQ_INDEX, count: 1 }));
    new DataView(irqs.buffer).setInt32(20, event, true);
    expect(kernel.ioctl(vfio, uapi.VFIO_DEVICE_SET_IRQS.request, irqs)).toBe(0);
    const before = read(CONFIG, 64);
    for (const reset of [
      () => hotReset(vfio),
      () => code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_RESET.request)),
    ]) {
      expect(reset()).toBe(0);
      expect(read(CONFIG, 64)).toEqual(before);
      expect(read(0, 4)).toEqual([0xed, 0, 0, 1]);
      // edu's interrupt raise register, and the acknowledgement.
      kernel.pwrite(vfio, new Uint8Array([1, 0, 0, 0]), 0x60);
      await until(() => kernel.read(event, new Uint8Array(8)) === 8);
      kernel.pwrite(vfio, new Uint8Array([1, 0, 0, 0]), 0x64);
    }
  });
});

describe('two functions', () => {
  const places = [
    { segment: 0, bus: 2, devfn: 0 },
    { segment: 0, bus: 2, devfn: 1 },
  ];

  test('have no reset of their own', () => {
    for (const bdf of PAIR) {
      const { vfio } = bound(bdf);
      expect(canReset(vfio)).toBe(false);
      expect(code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_RESET.request))).toBe('EINVAL');
    }
  });

  test('one of them bound: the other one comes with the group', () => {
    const { vfio, id } = bound(PAIR[1]);
    expect(info(vfio, 27)).toMatchObject({ result: 'ENOSPC', count: 2 });
    expect(info(vfio, 28)).toEqual({
      result: 0,
      flags: uapi.VFIO_PCI_HOT_RESET_FLAG_DEV_ID | uapi.VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
      count: 2,
      devices: [
        { devid: OWNED, ...places[0] },
        { devid: id, ...places[1] },
      ],
    });
    expect(hotReset(vfio)).toBe(0);
  });

  test('both bound', () => {
    const [first, second] = [bound(PAIR[0]), bound(PAIR[1])];
    const devices = [first, second].map(({ id }, i) => ({ devid: id, ...places[i] }));
    for (const { vfio } of [first, second]) {
      expect(info(vfio)).toMatchObject({ flags: 3, devices });
      expect(hotReset(vfio)).toBe(0);
    }
  });

  test('one of them with no driver: it is nobody’s to reset', () => {
    giveTo(PAIR[1], 'none');
    try {
      const { vfio, id } = bound(PAIR[0]);
      expect(info(vfio)).toEqual({
        result: 0,
        flags: uapi.VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
        count: 2,
        devices: [
          { devid: id, ...places[0] },
          { devid: NOT_OWNED, ...places[1] },
        ],
      });
      expect(hotReset(vfio)).toBe('EINVAL');
      calls.shut(vfio);
    } finally {
      giveTo(PAIR[1], 'vfio-pci');
    }
    expect(hotReset(bound(PAIR[0]).vfio)).toBe(0);
  });
});
