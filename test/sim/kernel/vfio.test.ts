/** vfio-pci on a function with every capability: what edu has not. */
import * as pci from '../../../lib/sim/devices/pci-registers';
import * as uapi from '../../../lib/uapi';
import { Bench, code, CONFIG, PROBE_BDF } from './bench';
import { PLAIN, ProbeFunction } from './probe-function';

const MSI = uapi.VFIO_PCI_MSI_IRQ_INDEX;
const MSIX = uapi.VFIO_PCI_MSIX_IRQ_INDEX;
const TABLE = 2 ** 40 + 0x40;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
  bench.bind();
});

const capability = (id: number) => bench.probe.config.capability(id);
const reset = () => bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_RESET.request);
const region = (index: number, argsz = 32) => {
  const bytes = new Uint8Array(64);
  bytes.set(uapi.vfio_region_info.encode({ argsz, index }));
  const result = bench.kernel.ioctl(bench.vfio, uapi.VFIO_DEVICE_GET_REGION_INFO.request, bytes);
  return { result, bytes, ...uapi.vfio_region_info.decode(bytes) };
};

describe('information', () => {
  test('flags and counts', () => {
    // It has PASIDs, and so the capability that the RFC adds: Linux would say PCI and RESET.
    expect(bench.call(uapi.VFIO_DEVICE_GET_INFO, {}, bench.vfio).flags).toBe(
      uapi.VFIO_DEVICE_FLAGS_PCI | uapi.VFIO_DEVICE_FLAGS_RESET | uapi.VFIO_DEVICE_FLAGS_CAPS,
    );
    const irq = (index: number) => bench.call(uapi.VFIO_DEVICE_GET_IRQ_INFO, { index }, bench.vfio);
    expect(irq(MSI)).toMatchObject({ count: 4, flags: 9 });
    // MSI-X vectors can be added one by one: NORESIZE is off.
    expect(irq(MSIX)).toMatchObject({ count: 4, flags: 1 });
  });

  test('the BAR with the MSI-X table says that it can be mapped', () => {
    expect(region(0)).toMatchObject({ result: 0, argsz: 32, flags: 7, cap_offset: 0 });
    expect(region(1)).toMatchObject({ result: 0, argsz: 40, flags: 15, cap_offset: 0 });
    const full = region(1, 40);
    expect(full).toMatchObject({ result: 0, argsz: 40, flags: 15, cap_offset: 32 });
    expect(uapi.vfio_info_cap_header.decode(full.bytes, 32)).toEqual({ id: 3, version: 1, next: 0 });
  });

  test('a function without any reset', () => {
    const plain = new Bench({}, new ProbeFunction(PLAIN));
    plain.bind();
    expect(plain.call(uapi.VFIO_DEVICE_GET_INFO, {}, plain.vfio).flags).toBe(uapi.VFIO_DEVICE_FLAGS_PCI);
    expect(code(plain.kernel.ioctl(plain.vfio, uapi.VFIO_DEVICE_RESET.request))).toBe('EINVAL');
    plain.probe.register = 7;
    plain.kernel.close(plain.vfio);
    expect(plain.probe.resets).toBe(0);
    expect(plain.probe.register).toBe(7);
    expect(plain.probe.config.busMasterEnabled).toBe(false);
  });
});

describe('configuration space', () => {
  test('hides PASID and keeps the others, read-only', () => {
    const ats = bench.probe.config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    const pri = bench.probe.config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
    expect(bench.config(ats) & 0xffff).toBe(pci.EXTENDED_CAPABILITY_ATS);
    expect(bench.config(ats) >>> 20).toBe(pri);
    expect(bench.config(pri) >>> 20).toBe(0);
    const before = bench.config(ats + 4);
    expect(before >>> 16).toBe(pci.ATS_CONTROL_ENABLE);
    expect(bench.config(ats + 4, 0, 0, 0, 0)).toBe(before);
    expect(bench.config(pri + 12)).toBe(16);
    expect(bench.config(pri + 12, 1, 0, 0, 0)).toBe(16);
  });

  test('if PASID comes first, an empty capability stands there', () => {
    const probe = new ProbeFunction({
      ...PLAIN,
      capabilities: [{ kind: 'express', type: 'endpoint', functionLevelReset: true }],
      extendedCapabilities: [
        { kind: 'pasid', width: 8, execute: false, privileged: false },
        { kind: 'ats', queueDepth: 1 },
      ],
    });
    const other = new Bench({}, probe);
    other.bind();
    const ats = probe.config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    expect(other.config(0x100)).toBe(((ats << 20) & 0xffc00000) >>> 0);
    expect(other.config(ats) & 0xffff).toBe(pci.EXTENDED_CAPABILITY_ATS);
  });

  test('a function level reset, with the kernel state put back', () => {
    const express = capability(pci.CAPABILITY_EXPRESS);
    const bar = bench.probe.config.read(0x10, 4);
    const ats = bench.probe.config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS) + pci.ATS_CONTROL;
    bench.probe.register = 9;
    const resets = bench.probe.resets;
    bench.config(express + 8, 0x10, 0x28 | 0x80);
    expect(bench.probe.resets).toBe(resets + 1);
    expect(bench.probe.register).toBe(0);
    expect(bench.config(express + 8) & 0xffff).toBe(0x2810);
    expect(bench.probe.config.read(0x10, 4)).toBe(bar);
    expect(bench.probe.config.busMasterEnabled).toBe(true);
    expect(bench.probe.config.read(ats, 2)).toBe(pci.ATS_CONTROL_ENABLE);
    expect(code(reset())).toBe(0);
    expect(bench.probe.resets).toBe(resets + 2);
  });

  test('Maximum Payload Size is not for user space, Maximum Read Request Size is', () => {
    const at = capability(pci.CAPABILITY_EXPRESS) + pci.EXPRESS_DEVICE_CONTROL;
    bench.config(at, 0xe0, 0x50);
    expect(bench.config(at) & 0x70e0).toBe(0x50e0);
    expect(bench.probe.config.read(at, 2) & 0x70e0).toBe(0x5000);
    bench.config(at, 0x10, 0x2a);
    expect(bench.config(at) & 0x200).toBe(0);
  });

  test('D3hot and back', () => {
    const control = capability(pci.CAPABILITY_POWER_MANAGEMENT) + pci.PM_CONTROL_STATUS;
    const bar = bench.probe.config.read(0x10, 4);
    const resets = bench.probe.resets;
    bench.config(control, 3);
    expect(bench.config(control) & 3).toBe(3);
    expect(code(bench.kernel.pread(bench.vfio, new Uint8Array(4), 0))).toBe('EIO');
    bench.config(control, 1);
    expect(bench.config(control) & 3).toBe(3);
    bench.config(control, 0);
    expect(bench.config(control) & 3).toBe(0);
    expect(bench.probe.resets).toBe(resets + 1);
    expect(bench.probe.config.read(0x10, 4)).toBe(bar);
    expect(bench.probe.config.busMasterEnabled).toBe(true);
    expect(code(bench.kernel.pread(bench.vfio, new Uint8Array(4), 0))).toBe(4);
  });

  test('the MSI-X control register and table are the kernel’s', () => {
    const at = capability(pci.CAPABILITY_MSIX);
    const before = bench.config(at);
    bench.config(at + 2, 0xff, 0xff);
    expect(bench.config(at)).toBe(before);
    const bytes = new Uint8Array(0x60);
    expect(bench.kernel.pread(bench.vfio, bytes, TABLE - 16)).toBe(0x60);
    expect([...new Set(bytes.subarray(16, 0x50))]).toEqual([0xff]);
    expect([...new Set(bytes.subarray(0x50))]).toEqual([0]);
    expect(bench.kernel.pwrite(bench.vfio, new Uint8Array(0x40), TABLE)).toBe(0x40);
    expect(bench.probe.readBar(1, 0x40 + 12, 4)).toBe(1);
  });

  test('a 64-bit BAR tells its size in two halves', () => {
    const probe = new ProbeFunction({
      ...PLAIN,
      bars: [{ bar: 2, size: 0x4000, width: 64, prefetchable: true }],
    });
    const other = new Bench({}, probe);
    other.bind();
    expect(other.config(0x18, 0xff, 0xff, 0xff, 0xff)).toBe(0xffff_c00c);
    expect(other.config(0x1c, 0xff, 0xff, 0xff, 0xff)).toBe(0xffff_ffff);
    expect(other.config(0x10, 0xff, 0xff, 0xff, 0xff)).toBe(0);
  });
});

describe('message interrupts', () => {
  test('several MSI vectors', () => {
    const events = [0, 1, 2].map(() => bench.eventfd());
    expect(bench.interrupts(MSI, [events[0], -1, events[2]])).toBe(0);
    for (const vector of [0, 1, 2, 3]) {
      bench.probe.interrupt(vector);
      bench.machine.idle();
    }
    expect(events.map((fd) => bench.count(fd))).toEqual([1, 0, 1]);
    expect(bench.interrupts(MSI, [events[1]], 1)).toBe(0);
    bench.probe.interrupt(1);
    bench.machine.idle();
    expect(bench.count(events[1])).toBe(1);
    // MSI has the vectors it was turned on with.
    expect(bench.interrupts(MSI, [events[1]], 3)).toBe('EINVAL');
    expect(bench.interrupts(MSI, [])).toBe(0);
    bench.probe.interrupt(0);
    bench.machine.idle();
    expect(bench.count(events[0])).toBe(0);
  });

  test('MSI-X vectors come one by one, and go', () => {
    const events = [0, 1, 2, 3].map(() => bench.eventfd());
    expect(bench.interrupts(MSIX, [events[0]])).toBe(0);
    expect(bench.interrupts(MSIX, [events[3]], 3)).toBe(0);
    expect(bench.interrupts(MSI, [events[0]])).toBe('EINVAL');
    for (const vector of [0, 1, 2, 3]) bench.probe.interrupt(vector);
    bench.machine.idle();
    expect(events.map((fd) => bench.count(fd))).toEqual([1, 0, 0, 1]);
    expect(bench.interrupts(MSIX, [-1])).toBe(0);
    bench.probe.interrupt(0);
    bench.machine.idle();
    expect(bench.count(events[0])).toBe(0);
    // It was pending in the device, which sends it when the vector is back.
    expect(bench.interrupts(MSIX, [events[0]])).toBe(0);
    bench.machine.idle();
    expect(bench.count(events[0])).toBe(1);
  });

  test.each([
    ['MSI', MSI],
    ['MSI-X', MSIX],
  ])('%s survives a reset and D3hot', (_name, index) => {
    const event = bench.eventfd();
    bench.interrupts(index, [event]);
    const control = capability(pci.CAPABILITY_POWER_MANAGEMENT) + pci.PM_CONTROL_STATUS;
    for (const disturb of [
      () => reset(),
      () => bench.config(capability(pci.CAPABILITY_EXPRESS) + 8, 0x10, 0xa8),
      () => {
        bench.config(control, 3);
        bench.config(control, 0);
      },
    ]) {
      disturb();
      bench.probe.interrupt(0);
      bench.machine.idle();
      expect(bench.count(event)).toBe(1);
    }
  });

  test('user space can turn MSI off, as the hardware sees it, and no further', () => {
    const event = bench.eventfd();
    bench.interrupts(MSI, [event, event]);
    const msi = capability(pci.CAPABILITY_MSI);
    const control = () => bench.probe.config.read(msi + pci.MSI_CONTROL, 2);
    expect(control() & 0x71).toBe(0x11);
    bench.config(msi + 2, 0x81);
    expect(control() & 0x71).toBe(1);
    bench.config(msi + 2, 0xf1);
    expect(control() & 0x71).toBe(0x11);
    bench.config(msi + 2, 0x80);
    expect(control() & 1).toBe(0);
    expect(bench.interrupts(MSI, [])).toBe(0);
    bench.config(msi + 2, 0xff);
    expect(control() & 1).toBe(0);
  });

  test('no vector is left after close', () => {
    const { interrupts } = bench.machine.system;
    const free = interrupts.allocate(() => {})!;
    free.free();
    bench.interrupts(MSIX, [bench.eventfd(), bench.eventfd()]);
    bench.kernel.close(bench.vfio);
    expect(interrupts.allocate(() => {})).toMatchObject({ data: free.data, addressLow: free.addressLow });
    bench.probe.interrupt(0);
    bench.machine.idle();
    expect(interrupts.spurious).toBe(0);
  });
});

describe('lifetimes', () => {
  test('a second, unbound file takes nothing from the bound one', () => {
    const event = bench.eventfd();
    expect(bench.interrupts(uapi.VFIO_PCI_INTX_IRQ_INDEX, [event])).toBe(0);
    const second = bench.open('/dev/vfio/devices/vfio0');
    bench.probe.level(true);
    expect(bench.count(event)).toBe(1);
    bench.kernel.close(second);
    expect(bench.probe.onIntx).toBeDefined();
    bench.kernel.close(bench.vfio);
    expect(bench.probe.onIntx).toBeUndefined();
  });

  test('an eventfd closed by the program keeps working for the device', () => {
    const event = bench.eventfd();
    const copy = bench.eventfd();
    bench.interrupts(MSI, [event]);
    bench.kernel.close(event);
    bench.probe.interrupt(0);
    bench.machine.idle();
    expect(bench.count(copy)).toBe(0);
    expect(bench.interrupts(MSI, [])).toBe(0);
  });

  test('a device is asked for before it goes', () => {
    const event = bench.eventfd();
    bench.interrupts(uapi.VFIO_PCI_REQ_IRQ_INDEX, [event]);
    bench.machine.unplug(PROBE_BDF);
    expect(bench.count(event)).toBe(1);
    const bytes = new Uint8Array(8);
    expect(bench.kernel.pread(bench.vfio, bytes, 0)).toBe(8);
    expect([...new Set(bytes)]).toEqual([0xff]);
    expect(bench.kernel.pwrite(bench.vfio, bytes, 0)).toBe(8);
    expect(bench.kernel.pread(bench.vfio, bytes, CONFIG + 4)).toBe(8);
  });
});
