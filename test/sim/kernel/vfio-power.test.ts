/** Low power, DMA-bufs and hot reset of VFIO devices where a guest cannot be the judge: CONFIG_PM, what DMA-bufs lead to. */
import type { MachineOptions } from '../../../lib/sim/machine';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { VfioDmaBuf } from '../../../lib/sim/kernel/vfio/dma-buf';
import type { SimulatedProcess } from '../../../lib/sim/kernel/process';
import * as uapi from '../../../lib/uapi';
import { Bench, code, CONFIG, PAGE, PROBE_BDF } from './bench';
import { PLAIN, PROBE, ProbeFunction } from './probe-function';

const { VFIO_DEVICE_FEATURE_SET: SET, VFIO_DEVICE_FEATURE_GET: GET } = uapi;
const COMMAND = CONFIG + pci.COMMAND;

let bench: Bench;

function start(options: MachineOptions = {}, probe = new ProbeFunction()): void {
  bench = new Bench(options, probe);
  bench.bind();
}

function feature(flags: number, data: Uint8Array = new Uint8Array(0)): string | number {
  const bytes = new Uint8Array(8 + data.length);
  bytes.set(uapi.vfio_device_feature.encode({ argsz: bytes.length, flags }));
  bytes.set(data, 8);
  return code(bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_FEATURE.request, bytes));
}

const allow = () => feature(SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY);
const forbid = () => feature(SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT);
const allowWithWakeup = (wakeup_eventfd: number) =>
  feature(
    SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
    uapi.vfio_device_low_power_entry_with_wakeup.encode({ wakeup_eventfd }),
  );

function powerState(): number {
  const { config } = bench.probe;
  const at = config.capability(pci.CAPABILITY_POWER_MANAGEMENT) + pci.PM_CONTROL_STATUS;
  return config.read(at, 2) & pci.PM_POWER_STATE;
}

describe('low power', () => {
  test('the device sleeps between calls, and is as it was for each', () => {
    start();
    const bar = bench.probe.config.read(0x10, 4);
    bench.probe.register = 5;
    expect(allow()).toBe(0);
    expect(powerState()).toBe(pci.POWER_STATE_D3HOT);
    const bytes = new Uint8Array(4);
    expect(bench.kernel.pread(bench.vfio, bytes, 0)).toBe(4);
    expect(powerState()).toBe(pci.POWER_STATE_D3HOT);
    // The function loses its state on the way back from D3hot, the kernel puts configuration back.
    expect(bytes[0]).toBe(0);
    expect(bench.config(0x10)).toBe(bar);
    expect(forbid()).toBe(0);
    expect(powerState()).toBe(pci.POWER_STATE_D0);
    expect(bench.probe.config.read(0x10, 4)).toBe(bar);
    expect(allow()).toBe(0);
    bench.kernel.close(bench.vfio);
    expect(powerState()).toBe(pci.POWER_STATE_D0);
  });

  test('the first use signals the eventfd, and ends it', () => {
    start();
    const event = bench.eventfd();
    expect(allowWithWakeup(event)).toBe(0);
    expect(bench.count(event)).toBe(0);
    bench.kernel.pread(bench.vfio, new Uint8Array(0), 0);
    bench.kernel.pread(bench.vfio, new Uint8Array(4), 9 * 2 ** 40);
    expect(bench.count(event)).toBe(0);
    bench.config(0);
    expect(bench.count(event)).toBe(1);
    expect(powerState()).toBe(pci.POWER_STATE_D0);
    bench.config(0);
    expect(bench.count(event)).toBe(0);
    // To allow it again is a use, too, and so is to forbid it.
    expect(allowWithWakeup(event)).toBe(0);
    expect(allowWithWakeup(event)).toBe(0);
    expect(bench.count(event)).toBe(1);
    expect(forbid()).toBe(0);
    expect(bench.count(event)).toBe(1);
    expect(allowWithWakeup(event)).toBe(0);
    bench.kernel.close(bench.vfio);
    expect(bench.count(event)).toBe(0);
  });

  test('an interrupt pin that rises meanwhile is heard afterwards', () => {
    start({}, new ProbeFunction(PLAIN));
    const event = bench.eventfd();
    expect(bench.interrupts(uapi.VFIO_PCI_INTX_IRQ_INDEX, [event])).toBe(0);
    expect(allow()).toBe(0);
    bench.probe.level(true);
    expect(bench.count(event)).toBe(0);
    expect(forbid()).toBe(0);
    expect(bench.count(event)).toBe(1);
  });

  test('a kernel without power management lets no device sleep', () => {
    start({ powerManagement: false });
    const event = bench.eventfd();
    expect(allowWithWakeup(event)).toBe(0);
    bench.config(0);
    expect(powerState()).toBe(pci.POWER_STATE_D0);
    expect(bench.count(event)).toBe(0);
    expect(allow()).toBe('EINVAL');
  });
});

describe('DMA-bufs', () => {
  const head = { region_index: 1, open_flags: 2, nr_ranges: 1 };

  function exported(): VfioDmaBuf {
    const data = new Uint8Array(32);
    data.set(uapi.vfio_device_feature_dma_buf.encode(head));
    data.set(uapi.vfio_region_dma_range.encode({ offset: PAGE, length: PAGE }), 16);
    const fd = feature(GET | uapi.VFIO_DEVICE_FEATURE_DMA_BUF, data) as number;
    return (bench.kernel as SimulatedProcess).file(fd) as VfioDmaBuf;
  }

  test('lead to the BAR, wherever user space thinks it is', () => {
    start();
    const base = (bench.probe.config.read(0x14, 4) & ~0xf) >>> 0;
    bench.config(0x14, 0, 0, 0, 0x12);
    expect(exported()).toMatchObject({
      revoked: false,
      ranges: [{ address: base + PAGE, length: PAGE }],
    });
  });

  test('of a 64-bit BAR', () => {
    const bars = [{ bar: 1, size: 0x2000, width: 64, prefetchable: true }] as const;
    start({}, new ProbeFunction({ ...PLAIN, bars }));
    bench.probe.config.write(0x18, 4, 0x12);
    expect(Math.floor(exported().ranges[0].address / 2 ** 32)).toBe(0x12);
  });

  test.each([
    ['memory space', [2, 0], () => bench.kernel.pwrite(bench.vfio, new Uint8Array([0, 0]), COMMAND)],
    ['low power', [], () => allow()],
  ])('are revoked by %s, and come back', (_name, on, off) => {
    start();
    const file = exported();
    off();
    expect(file.revoked).toBe(true);
    if (on.length > 0) bench.kernel.pwrite(bench.vfio, Uint8Array.from(on), COMMAND);
    else forbid();
    expect(file.revoked).toBe(false);
  });

  test('are revoked in D3hot, from the start and for good once the device is closed', () => {
    start();
    const control = bench.probe.config.capability(pci.CAPABILITY_POWER_MANAGEMENT) + pci.PM_CONTROL_STATUS;
    const file = exported();
    bench.config(control, 3);
    expect([file.revoked, exported().revoked]).toEqual([true, true]);
    bench.config(control, 0);
    expect(file.revoked).toBe(false);
    expect(code(bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_RESET.request))).toBe(0);
    expect(file.revoked).toBe(false);
    bench.kernel.close(bench.vfio);
    bench.bind();
    expect(file.revoked).toBe(true);
  });
});

describe('hot reset', () => {
  const SECOND = '0000:03:00.1';

  function pair(driver: string | null = 'vfio-pci') {
    const [first, second] = [new ProbeFunction(PROBE), new ProbeFunction(PROBE)];
    const devices = { '0000:03:00.0': first, [SECOND]: { device: second, driver } };
    start({ devices }, first);
    return { first, second };
  }

  test('reaches every function, and gives each its messages back', () => {
    const { first, second } = pair();
    const path = '/dev/vfio/devices/vfio1';
    const other = bench.open(path);
    bench.call(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: bench.fd }, other);
    bench.kernel.pwrite(other, new Uint8Array([6, 0]), COMMAND);
    const vfio = bench.vfio;
    bench.vfio = other;
    const event = bench.eventfd();
    expect(bench.interrupts(uapi.VFIO_PCI_MSIX_IRQ_INDEX, [event])).toBe(0);
    const resets = [first.resets, second.resets];
    expect(bench.result(uapi.VFIO_DEVICE_PCI_HOT_RESET, {}, vfio)).toBe(0);
    expect([first.resets, second.resets]).toEqual(resets.map((count) => count + 1));
    second.interrupt(0);
    bench.machine.idle();
    expect(bench.count(event)).toBe(1);
  });

  test('wakes who sleeps', () => {
    pair();
    const other = bench.open('/dev/vfio/devices/vfio1');
    bench.call(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: bench.fd }, other);
    const event = bench.eventfd();
    expect(allowWithWakeup(event)).toBe(0);
    expect(bench.result(uapi.VFIO_DEVICE_PCI_HOT_RESET, {}, other)).toBe(0);
    expect(bench.count(event)).toBe(1);
  });

  test('is refused where another iommufd, another driver or nobody has a function', () => {
    pair();
    const other = bench.open('/dev/vfio/devices/vfio1');
    const iommufd = bench.open();
    bench.call(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd }, other);
    expect(bench.result(uapi.VFIO_DEVICE_PCI_HOT_RESET, {}, bench.vfio)).toBe('EINVAL');
    bench.kernel.close(other);
    expect(bench.result(uapi.VFIO_DEVICE_PCI_HOT_RESET, {}, bench.vfio)).toBe('EINVAL');
    for (const driver of ['e1000e', null]) {
      pair(driver);
      expect(bench.result(uapi.VFIO_DEVICE_PCI_HOT_RESET, {}, bench.vfio)).toBe('EINVAL');
    }
  });

  test('a function without a reset of its own is reset with its bus when the last one is closed', () => {
    const [first, second] = [new ProbeFunction(PLAIN), new ProbeFunction(PLAIN)];
    start({ devices: { '0000:03:00.0': first, [SECOND]: second } }, first);
    const other = bench.open('/dev/vfio/devices/vfio1');
    bench.call(uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: bench.fd }, other);
    bench.kernel.close(bench.vfio);
    expect([first.resets, second.resets]).toEqual([0, 0]);
    bench.kernel.close(other);
    expect([first.resets, second.resets]).toEqual([1, 1]);
  });

  test('who is alone on a bus has that for its own', () => {
    const probe = new ProbeFunction(PLAIN);
    start({ devices: { '0000:03:00.0': probe } }, probe);
    expect(bench.call(uapi.VFIO_DEVICE_GET_INFO, {}, bench.vfio).flags & uapi.VFIO_DEVICE_FLAGS_RESET).toBe(
      1,
    );
    bench.machine.plug(SECOND, { device: new ProbeFunction(PLAIN) });
    expect(code(bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_RESET.request))).toBe('ENOTTY');
    bench.machine.unplug(SECOND);
    expect(code(bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_RESET.request))).toBe(0);
  });
});

test('without memory space the MSI-X table reads as ones still, and what is beside it is EIO', () => {
  start();
  bench.kernel.pwrite(bench.vfio, new Uint8Array([0, 0]), COMMAND);
  const bytes = new Uint8Array(0x40);
  const table = 2 ** 40 + 0x40;
  expect(bench.kernel.pread(bench.vfio, bytes, table)).toBe(0x40);
  expect([...new Set(bytes)]).toEqual([0xff]);
  expect(bench.kernel.pwrite(bench.vfio, bytes, table)).toBe(0x40);
  const longer = new Uint8Array(0x48);
  expect(code(bench.kernel.pread(bench.vfio, longer, table))).toBe('EIO');
  // As far as it came.
  expect([...longer]).toEqual([...new Array<number>(0x40).fill(0xff), ...new Array<number>(8).fill(0)]);
});

test('IOEVENTFD: not into the MSI-X table, and of a pulled device nothing', () => {
  start();
  const event = bench.eventfd();
  const set = (offset: number, flags = 8) =>
    bench.result(
      uapi.VFIO_DEVICE_IOEVENTFD,
      { flags, offset: 2 ** 40 + offset, data: 1n, fd: event },
      bench.vfio,
    );
  for (const offset of [0x40, 0x39, 0x7f]) expect(set(offset)).toBe('EINVAL');
  expect(set(0x38)).toBe(0);
  expect(set(0x80)).toBe(0);
  bench.machine.unplug(PROBE_BDF);
  expect(bench.kernel.write(event, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))).toBe(8);
  expect(bench.probe.register).toBe(0);
});

test('an eventfd that unmasks the interrupt it is told of does not turn in circles', () => {
  start({}, new ProbeFunction(PLAIN));
  const event = bench.eventfd();
  expect(bench.interrupts(uapi.VFIO_PCI_INTX_IRQ_INDEX, [event])).toBe(0);
  const bytes = new Uint8Array(24);
  const flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_UNMASK;
  bytes.set(uapi.vfio_irq_set.encode({ argsz: 24, flags, index: 0, count: 1 }));
  new DataView(bytes.buffer).setInt32(20, event, true);
  expect(bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_SET_IRQS.request, bytes)).toBe(0);
  bench.probe.level(true);
  expect(bench.count(event)).toBe(1);
});

test('the message of an interrupt that is off is gone from the device', () => {
  start();
  const msi = bench.probe.config.capability(pci.CAPABILITY_MSI);
  const event = bench.eventfd();
  expect(bench.interrupts(uapi.VFIO_PCI_MSI_IRQ_INDEX, [event])).toBe(0);
  expect(bench.probe.config.read(msi + pci.MSI_ADDRESS, 4)).not.toBe(0);
  expect(bench.interrupts(uapi.VFIO_PCI_MSI_IRQ_INDEX, [])).toBe(0);
  expect([4, 8, 12].map((at) => bench.probe.config.read(msi + at, 4))).toEqual([0, 0, 0]);
  expect(bench.interrupts(uapi.VFIO_PCI_MSIX_IRQ_INDEX, [event])).toBe(0);
  expect(bench.probe.readBar(1, 0x40, 4)).not.toBe(0);
  expect(bench.interrupts(uapi.VFIO_PCI_MSIX_IRQ_INDEX, [])).toBe(0);
  expect([0, 4, 8, 12].map((at) => bench.probe.readBar(1, 0x40 + at, 4))).toEqual([0, 0, 0, 1]);
});
