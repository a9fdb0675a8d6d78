/** Machines as a whole: what is left when programs end, who may have a device, and time. */
import type { SimulatedProcess } from '../../lib/sim/kernel/process';
import { Machine } from '../../lib/sim/machine';
import * as uapi from '../../lib/uapi';
import { Bench, code, CONFIG, PAGE, PROBE_BDF } from './kernel/bench';
import { PLAIN, ProbeFunction } from './kernel/probe-function';

const OTHER_BDF = '0000:00:07.0';
const FAULT = uapi.IOMMU_HWPT_FAULT_ID_VALID;
const PASID = uapi.IOMMU_HWPT_ALLOC_PASID;
const NEST = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;

/** Binds, and makes one of everything on the device. */
function useEverything(bench: Bench): void {
  bench.fd = bench.open();
  bench.bind();
  const ioas = bench.ioas();
  const memory = bench.memory(4 * PAGE);
  bench.map(ioas, 0x1000, memory.address, 4 * PAGE);
  const { out_fault_id: fault_id } = bench.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
  const faulting = bench.hwpt(ioas, { flags: FAULT | PASID, fault_id });
  bench.attach(faulting);
  bench.attach(bench.hwpt(bench.ioas(), { flags: PASID }), 300);
  const parent = bench.hwpt(ioas, { flags: NEST });
  memory.bytes.set(uapi.iommu_hwpt_vtd_s1.encode({ pgtbl_addr: 0x1000, addr_width: 48 }));
  bench.hwpt(parent, { data_type: 1, data_len: 24, data_uptr: memory.address });
  bench.interrupts(uapi.VFIO_PCI_MSIX_IRQ_INDEX, [bench.eventfd(), bench.eventfd()]);
  bench.probe.page(0x9000, 1);
  expect(bench.probe.read(0x1000, 1)).toBeDefined();
  bench.machine.idle();
}

function footprint({ machine }: Bench) {
  const { groups, devices } = machine.system;
  const vector = machine.system.interrupts.allocate(() => {})!;
  vector.free();
  return {
    pages: machine.memory.allocatedPages,
    owners: groups.map(({ owner, ownerCount, handles }) => [owner, ownerCount, handles.size]),
    opened: [...devices.values()].map(({ opened }) => opened),
    vector: vector.data,
    adopted: machine.memory.has(2 ** 32, 1),
  };
}

describe('nothing is left', () => {
  let bench: Bench;
  let before: ReturnType<typeof footprint>;
  beforeEach(() => {
    bench = new Bench();
    bench.kernel.close(bench.fd);
    // Once before counting: tables of PASIDs stay with the device.
    useEverything(bench);
    (bench.kernel as SimulatedProcess).exit();
    before = footprint(bench);
  });

  test('by programs that end with everything open', () => {
    for (let round = 0; round < 5; round++) {
      const process = bench.machine.createProcess();
      const next = Object.assign(Object.create(bench) as Bench, { kernel: process });
      useEverything(next);
      expect(footprint(bench)).not.toEqual(before);
      process.exit();
      expect(footprint(bench)).toEqual(before);
    }
  });

  test('by closing in any order', () => {
    for (const order of [
      ['fd', 'vfio', 'queue'],
      ['vfio', 'fd', 'queue'],
      ['queue', 'fd', 'vfio'],
      ['queue', 'vfio', 'fd'],
    ]) {
      const process = bench.machine.createProcess();
      const next = Object.assign(Object.create(bench) as Bench, { kernel: process });
      useEverything(next);
      const descriptors: Record<string, number> = { fd: next.fd, vfio: next.vfio, queue: next.vfio + 1 };
      for (const each of order) expect(process.close(descriptors[each])).toBe(0);
      process.exit();
      expect(footprint(bench)).toEqual(before);
    }
  });

  test('descriptors are the lowest free', () => {
    const process = bench.machine.createProcess();
    const events = [process.eventfd(0, 0), process.eventfd(0, 0), process.eventfd(0, 0)];
    expect(events).toEqual([3, 4, 5]);
    process.close(4);
    process.close(3);
    expect([process.eventfd(0, 0), process.eventfd(0, 0), process.eventfd(0, 0)]).toEqual([3, 4, 6]);
    let last = 0;
    while (last >= 0) last = process.eventfd(0, 0);
    expect(code(last)).toBe('EMFILE');
    const iommu = process.file(3);
    process.close(3);
    const fd = process.open('/dev/iommu', 2);
    expect(fd).toBe(3);
    expect(process.file(3)).not.toBe(iommu);
    // A fault queue without room for its descriptor takes nothing with it.
    const bytes = uapi.iommu_fault_alloc.encode({ size: 16 });
    expect(code(process.ioctl(fd, uapi.IOMMU_FAULT_QUEUE_ALLOC.request, bytes))).toBe('EMFILE');
    process.exit();
    expect(footprint(bench)).toEqual(before);
  });
});

describe('who may have a device', () => {
  const bind = (kernel: ReturnType<Machine['createProcess']>, path = '/dev/vfio/devices/vfio0') => {
    const fd = kernel.open('/dev/iommu', 2);
    const vfio = kernel.open(path, 2);
    if (vfio < 0) return code(vfio);
    const bytes = uapi.vfio_device_bind_iommufd.encode({ argsz: 24, iommufd: fd });
    return code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD.request, bytes));
  };

  test('one process at a time', () => {
    const { machine } = new Bench();
    const [one, two] = [machine.createProcess(), machine.createProcess()];
    expect(bind(one)).toBe(0);
    expect(bind(two)).toBe('EINVAL');
    one.exit();
    expect(bind(two)).toBe(0);
  });

  test('a group belongs to one iommufd', () => {
    const devices = {
      [PROBE_BDF]: { device: new ProbeFunction(), group: 4 },
      [OTHER_BDF]: { device: new ProbeFunction(), group: 4 },
    };
    const machine = new Machine({ manual: true, devices });
    const [one, two] = [machine.createProcess(), machine.createProcess()];
    expect(bind(one)).toBe(0);
    expect(bind(two, '/dev/vfio/devices/vfio1')).toBe('EPERM');
    expect(one.readdir('/sys/kernel/iommu_groups/4/devices')).toEqual([PROBE_BDF, OTHER_BDF]);
    one.exit();
    expect(bind(two, '/dev/vfio/devices/vfio1')).toBe(0);
    expect(bind(one)).toBe('EPERM');
  });

  test('a driver of the kernel in the group keeps user space out, and the other way round', () => {
    const devices = {
      [PROBE_BDF]: { device: new ProbeFunction(), group: 4 },
      [OTHER_BDF]: { device: new ProbeFunction(), group: 4, driver: 'nvme' },
    };
    const machine = new Machine({ manual: true, devices });
    const kernel = machine.createProcess();
    const driver = '/sys/bus/pci/drivers/nvme';
    expect(bind(kernel)).toBe('EPERM');
    expect(kernel.writeFile(`${driver}/unbind`, OTHER_BDF)).toBe(12);
    expect(bind(kernel)).toBe(0);
    expect(code(kernel.writeFile(`${driver}/bind`, OTHER_BDF))).toBe('EBUSY');
    kernel.exit();
    expect(kernel.writeFile('/sys/bus/pci/drivers_probe', OTHER_BDF)).toBe(12);
    expect(kernel.readlink(`/sys/bus/pci/devices/${OTHER_BDF}/driver`)).toMatch(/nvme$/);
  });

  test('devices of a group share what they are attached to', () => {
    const [left, right] = [new ProbeFunction(), new ProbeFunction()];
    const devices = { [PROBE_BDF]: { device: left, group: 4 }, [OTHER_BDF]: { device: right, group: 4 } };
    const bench = new Bench({ devices }, left);
    bench.bind('/dev/vfio/devices/vfio0');
    const first = bench.vfio;
    bench.bind('/dev/vfio/devices/vfio1');
    const ioas = bench.ioas();
    const memory = bench.memory();
    bench.map(ioas, 0x1000, memory.address);
    const hwpt = bench.hwpt(ioas, { flags: PASID });
    bench.attach(hwpt);
    // One attachment is enough for both; the other table is refused until all are detached.
    expect(left.read(0x1000, 1)).toEqual([0]);
    expect(right.read(0x1000, 1)).toEqual([0]);
    bench.vfio = first;
    const attach = uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    expect(bench.result(attach, { pt_id: bench.hwpt(ioas), argsz: 12 }, first)).toBe('EINVAL');
    bench.attach(hwpt);
    bench.attach(hwpt, 8);
    expect(left.read(0x1000, 1, 8)).toEqual([0]);
    expect(right.read(0x1000, 1, 8)).toEqual([0]);
    bench.detach();
    expect(left.read(0x1000, 1)).toEqual([0]);
    bench.kernel.close(first);
    expect(right.read(0x1000, 1, 8)).toBeUndefined();
    expect(right.read(0x1000, 1)).toEqual([0]);
  });

  test('permissions', () => {
    const { machine } = new Bench();
    const user = machine.createProcess({ uid: 1000 });
    expect(code(user.open('/dev/iommu', 2))).toBe('EACCES');
    expect(code(user.open('/dev/no-such-file', 2))).toBe('ENOENT');
    expect(user.readFile(`/sys/bus/pci/devices/${PROBE_BDF}/vendor`)).toBe('0x1234\n');
    const unbind = '/sys/bus/pci/drivers/vfio-pci/unbind';
    expect(code(user.writeFile(unbind, PROBE_BDF))).toBe('EACCES');
    expect(code(user.open(unbind, 1))).toBe('EACCES');
    const permissions = (path: string, { uid }: { uid: number }) => uid === 0 || path !== '/dev/iommu';
    const lenient = new Machine({ permissions }).createProcess({ uid: 1000 });
    expect(lenient.open('/dev/vfio/devices/vfio0', 2)).toBe(3);
    expect(code(lenient.open('/dev/iommu', 2))).toBe('EACCES');
  });

  test('without interrupt remapping, nobody', () => {
    const { machine } = new Bench({ iommu: { interruptRemapping: false } });
    expect(bind(machine.createProcess())).toBe('EPERM');
  });

  test('not while user space has it, for the driver core', () => {
    const bench = new Bench();
    bench.bind();
    const unbind = '/sys/bus/pci/drivers/vfio-pci/unbind';
    expect(code(bench.kernel.writeFile(unbind, PROBE_BDF))).toBe('EBUSY');
    bench.kernel.close(bench.vfio);
    expect(bench.kernel.writeFile(unbind, PROBE_BDF)).toBe(12);
    expect(bench.kernel.readdir('/dev/vfio')).toEqual([]);
  });
});

describe('plugging and unplugging', () => {
  test('an idle device leaves nothing', () => {
    const bench = new Bench();
    const before = bench.machine.memory.allocatedPages;
    for (let round = 0; round < 3; round++) {
      bench.machine.plug(OTHER_BDF, { device: new ProbeFunction(PLAIN) });
      expect(bench.kernel.readdir('/dev/vfio/devices')).toEqual(['vfio0', 'vfio1']);
      expect(() => bench.machine.plug(OTHER_BDF, { device: new ProbeFunction() })).toThrow(RangeError);
      bench.machine.unplug(OTHER_BDF);
      expect(() => bench.machine.unplug(OTHER_BDF)).toThrow(RangeError);
      expect(bench.machine.memory.allocatedPages).toBe(before);
      expect(bench.machine.system.groups).toHaveLength(1);
    }
  });

  test('one in use stays with its user, who can reach nothing through it', () => {
    const bench = new Bench();
    bench.bind();
    const ioas = bench.ioas();
    const memory = bench.memory();
    bench.map(ioas, 0x1000, memory.address);
    bench.attach(ioas);
    const second = bench.open('/dev/vfio/devices/vfio0');
    bench.machine.unplug(PROBE_BDF);
    expect(bench.probe.read(0x1000, 1)).toBeUndefined();
    expect(bench.machine.device(PROBE_BDF)).toBeUndefined();
    const fresh = new ProbeFunction();
    bench.machine.plug(PROBE_BDF, { device: fresh });
    expect(fresh.read(0x1000, 1)).toBeUndefined();
    bench.kernel.close(bench.vfio);
    const bytes = uapi.vfio_device_bind_iommufd.encode({ argsz: 24, iommufd: bench.fd });
    expect(code(bench.kernel.ioctl(second, uapi.VFIO_DEVICE_BIND_IOMMUFD.request, bytes))).toBe('ENODEV');
    bench.bind('/dev/vfio/devices/vfio0');
    bench.attach(ioas);
    expect(fresh.read(0x1000, 1)).toEqual([0]);
  });
});

describe('time', () => {
  test('passes in steps only, if it is manual', () => {
    const { machine, probe } = new Bench();
    const log: [string, number][] = [];
    machine.idle();
    const start = machine.now;
    probe.later(100, () => log.push(['a', machine.now - start]));
    probe.later(50, () => {
      log.push(['b', machine.now - start]);
      probe.later(0, () => log.push(['c', machine.now - start]));
    });
    expect(machine.step()).toBe(true);
    expect(log).toEqual([['b', 50]]);
    expect(machine.idle()).toBe(2);
    expect(log).toEqual([
      ['b', 50],
      ['c', 50],
      ['a', 100],
    ]);
    expect(machine.step()).toBe(false);
    expect(machine.idle()).toBe(0);
  });

  test('a device that never rests is found out', () => {
    const { machine, probe } = new Bench();
    const again = () => probe.later(1, again);
    again();
    expect(() => machine.idle(100)).toThrow('not idle after 100 events');
  });

  test('passes while the program waits, and while it reads registers', async () => {
    const probe = new ProbeFunction();
    const bench = new Bench({ manual: false, devices: { [PROBE_BDF]: probe } }, probe);
    bench.bind();
    let ran = 0;
    probe.later(1_000_000_000, () => ran++);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(ran).toBe(1);
    probe.later(5, () => ran++);
    const bytes = new Uint8Array(4);
    for (let i = 0; i < 10 && ran < 2; i++) bench.kernel.pread(bench.vfio, bytes, CONFIG);
    expect(ran).toBe(2);
  });

  test('two machines have nothing in common', () => {
    const [one, two] = [new Bench(), new Bench()];
    one.bind();
    two.bind();
    const ioas = one.ioas();
    one.map(ioas, 0x1000, one.memory().address);
    one.attach(ioas);
    two.attach(two.ioas());
    expect(one.probe.read(0x1000, 1)).toEqual([0]);
    expect(two.probe.read(0x1000, 1)).toBeUndefined();
    two.machine.idle();
    expect(two.machine.refusedDma).toHaveLength(1);
    expect(one.machine.refusedDma).toHaveLength(0);
  });
});

describe('the interrupt window', () => {
  test('takes aligned 4-byte writes, as messages, and nothing else', () => {
    const bench = new Bench();
    bench.bind();
    const { interrupts, devices } = bench.machine.system;
    const heard: string[] = [];
    const messages = bench.machine.system.messagesOf(devices.get(PROBE_BDF)!);
    const vector = messages.allocateBlock(1, () => heard.push('interrupt'))!;
    const { addressLow, data } = vector;
    expect(bench.probe.write(addressLow, [data, 0, 0, 0])).toBe(true);
    expect(heard).toEqual([]);
    bench.machine.idle();
    expect(heard).toEqual(['interrupt']);
    expect(bench.probe.write(addressLow, [data, 0])).toBe(false);
    expect(bench.probe.write(addressLow + 2, [data, 0, 0, 0])).toBe(false);
    expect(bench.probe.write(addressLow, [data, 0, 0, 0, 0, 0, 0, 0])).toBe(false);
    expect(bench.probe.read(addressLow, 4)).toBeUndefined();
    bench.machine.idle();
    expect(heard).toEqual(['interrupt']);
    expect(bench.machine.refusedInterrupts).toEqual([]);
    vector.free();
    bench.probe.write(addressLow, [data, 0, 0, 0]);
    bench.machine.idle();
    expect([heard.length, interrupts.spurious]).toEqual([1, 0]);
    expect(bench.machine.refusedInterrupts).toHaveLength(1);
  });

  test('needs Bus Master Enable, like any write', () => {
    const bench = new Bench();
    bench.bind();
    bench.kernel.pwrite(bench.vfio, new Uint8Array([2, 0]), CONFIG + 4);
    expect(bench.probe.write(0xfee0_0000, [0x30, 0, 0, 0])).toBe(false);
  });
});
