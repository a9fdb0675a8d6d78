/**
 * Groups in the hands of user space: who may take one, and what its DMA reaches at every moment. The kernel is one that
 * was started with iommu=pt, so that devices that nobody has taken reach all of memory: any gap would show.
 */
import type { Kernel } from '../../../lib/kernel';
import { Machine, type DeviceOptions } from '../../../lib/sim/machine';
import * as uapi from '../../../lib/uapi';
import { Bench, code } from './bench';
import { PLAIN, PROBE, ProbeFunction } from './probe-function';

const LEFT = '0000:00:06.0';
const RIGHT = '0000:00:07.0';
const THIRD = '0000:00:08.0';
const ATTACH = uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
const EFAULT_ADDRESS = 0x7_0000_0000;
/** Without ATS and PRI. */
const NO_PRI = { ...PROBE, extendedCapabilities: [] };

/** A device that does DMA whenever it is told to invalidate: in the middle of each change of its tables. */
class Watcher extends ProbeFunction {
  readonly seen: (number[] | undefined)[] = [];
  watched: number | undefined;

  override invalidateTranslations(...all: Parameters<ProbeFunction['invalidateTranslations']>): void {
    super.invalidateTranslations(...all);
    if (this.watched !== undefined) this.seen.push(this.read(this.watched, 1));
  }
}

class GroupBench extends Bench {
  /** A page of the machine's memory that no program has: its address, where 0x5a is. */
  readonly secret: number;

  constructor(devices: Record<string, DeviceOptions>, left: ProbeFunction) {
    super({ devices, iommu: { passthrough: true } }, left);
    this.secret = this.machine.memory.allocatePage();
    this.machine.memory.copyIn(this.secret, Uint8Array.of(0x5a), 0, 1);
  }

  /** Binds the n-th device, with bus master on: its file. */
  bindNth(n: number): number {
    this.bind(`/dev/vfio/devices/vfio${n}`);
    return this.vfio;
  }

  /** A space whose `secret` IOVA holds `byte`. */
  space(byte: number): number {
    const memory = this.memory();
    memory.bytes[0] = byte;
    const ioas = this.ioas();
    this.map(ioas, this.secret, memory.address);
    return ioas;
  }

  /** Turns bus master on by the device's own register: nobody has bound it. */
  enable(bdf: string): void {
    this.machine.device(bdf)!.config.write(4, 2, 6);
  }
}

function setUp({
  left = new ProbeFunction(),
  right = new ProbeFunction(),
  driver = null as string | null,
} = {}) {
  const devices = {
    [LEFT]: { device: left, group: 4 },
    [RIGHT]: { device: right, group: 4 },
    [THIRD]: { device: new ProbeFunction(), group: 4, driver },
  };
  const bench = new GroupBench(devices, left);
  const third = bench.machine.device(THIRD) as ProbeFunction;
  for (const bdf of [LEFT, RIGHT, THIRD]) bench.enable(bdf);
  /** What each of the three reads at the secret's address. */
  const reads = () => [left, right, third].map((device) => device.read(bench.secret, 1)?.[0]);
  return { bench, left, right, third, reads };
}

const NOTHING = [undefined, undefined, undefined];
const SECRET = [0x5a, 0x5a, 0x5a];

describe('block-DMA', () => {
  test('lasts from the first bind to the last unbind, for members too that nobody has bound', () => {
    const { bench, reads } = setUp();
    expect(reads()).toEqual(SECRET);
    const first = bench.bindNth(0);
    bench.enable(LEFT);
    expect(reads()).toEqual(NOTHING);
    const second = bench.bindNth(1);
    expect(reads()).toEqual(NOTHING);
    bench.kernel.close(first);
    bench.enable(LEFT);
    expect(reads()).toEqual(NOTHING);
    bench.kernel.close(second);
    bench.enable(RIGHT);
    expect(reads()).toEqual(SECRET);
  });

  test('is a fault, and nothing is written', () => {
    const { bench, third } = setUp();
    bench.bindNth(0);
    expect(third.write(bench.secret, [1])).toBe(false);
    bench.machine.idle();
    expect(bench.machine.refusedDma.at(-1)).toMatchObject({ rid: 0x40, address: BigInt(bench.secret) });
    const bytes = new Uint8Array(1);
    bench.machine.memory.copyOut(bench.secret, bytes, 0, 1);
    expect([...bytes]).toEqual([0x5a]);
  });

  test('is what is left when the last is detached', () => {
    const { bench, reads } = setUp();
    bench.bindNth(0);
    bench.attach(bench.space(1));
    expect(reads()).toEqual([1, 1, 1]);
    bench.detach();
    expect(reads()).toEqual(NOTHING);
  });
});

describe('attaching', () => {
  test('one member switches all of them, and never through the kernel’s own domain', () => {
    const left = new Watcher();
    const right = new Watcher();
    const { bench, reads } = setUp({ left, right });
    bench.bindNth(0);
    for (const device of [left, right]) device.watched = bench.secret;
    const one = bench.hwpt(bench.space(1));
    const two = bench.hwpt(bench.space(2));
    bench.attach(one);
    expect(reads()).toEqual([1, 1, 1]);
    bench.attach(two);
    expect(reads()).toEqual([2, 2, 2]);
    bench.detach();
    const seen = [...left.seen, ...right.seen].map((bytes) => bytes?.[0]);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen).not.toContain(0x5a);
  });

  test('all members are in one space: another is EINVAL until the last has left', () => {
    const { bench, reads } = setUp();
    const [first, second] = [bench.bindNth(0), bench.bindNth(1)];
    const [one, two] = [bench.hwpt(bench.space(1)), bench.hwpt(bench.space(2))];
    const attach = (fd: number, pt_id: number) => bench.result(ATTACH, { pt_id, argsz: 12 }, fd);
    expect(attach(first, one)).toBe(0);
    expect(attach(second, two)).toBe('EINVAL');
    expect(reads()).toEqual([1, 1, 1]);
    expect(attach(second, one)).toBe(0);
    bench.call(uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}, first);
    expect(reads()).toEqual([1, 1, 1]);
    expect(attach(first, two)).toBe('EINVAL');
    bench.call(uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}, second);
    expect(attach(first, two)).toBe(0);
    expect(reads()).toEqual([2, 2, 2]);
  });

  test('a member that cannot keeps all of them where they are', () => {
    const { bench, reads } = setUp({ right: new ProbeFunction(NO_PRI) });
    bench.bindNth(0);
    const { out_fault_id: fault_id } = bench.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    const flags = uapi.IOMMU_HWPT_FAULT_ID_VALID;
    const faulting = bench.hwpt(bench.space(2), { flags, fault_id });
    const attach = () => bench.result(ATTACH, { pt_id: faulting, argsz: 12 }, bench.vfio);
    expect(attach()).toBe('ENODEV');
    expect(reads()).toEqual(NOTHING);
    bench.attach(bench.space(1));
    expect(attach()).toBe('ENODEV');
    expect(reads()).toEqual([1, 1, 1]);
  });
});

/** Binds in a process of its own: 0, or the errno's name. */
function bind(kernel: Kernel, n: number): string | number {
  const vfio = kernel.open(`/dev/vfio/devices/vfio${n}`, 2);
  if (vfio < 0) return code(vfio);
  const bytes = uapi.vfio_device_bind_iommufd.encode({ argsz: 24, iommufd: kernel.open('/dev/iommu', 2) });
  return code(kernel.ioctl(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD.request, bytes));
}

describe('who may have a group', () => {
  test.each([
    [null, 0],
    ['pci-stub', 0],
    ['pcieport', 0],
    ['vfio-pci', 0],
    ['nvme', 'EPERM'],
  ])('beside a member whose driver is %s: %s', (driver, expected) => {
    const { bench, reads } = setUp({ driver });
    expect(bind(bench.machine.createProcess(), 0)).toBe(expected);
    // What is refused changes nothing.
    bench.enable(LEFT);
    expect(reads()).toEqual(expected === 0 ? NOTHING : SECRET);
  });

  test('one iommufd at a time', () => {
    const { bench } = setUp({ driver: 'vfio-pci' });
    const [one, two] = [bench.machine.createProcess(), bench.machine.createProcess()];
    expect(bind(one, 0)).toBe(0);
    expect(bind(two, 1)).toBe('EPERM');
    // The same process, but another iommufd.
    expect(bind(one, 1)).toBe('EPERM');
    one.exit();
    expect(bind(two, 1)).toBe(0);
  });

  test('while it is owned, no driver that does DMA binds to a member', () => {
    const { bench, reads } = setUp();
    const { kernel, machine } = bench;
    const write = (driver: string, file: string) =>
      code(kernel.writeFile(`/sys/bus/pci/drivers/${driver}/${file}`, THIRD));
    machine.system.drivers.add('nvme').add('pci-stub');
    const fd = bench.bindNth(0);
    expect(write('nvme', 'bind')).toBe('EBUSY');
    // Probing says nothing, and binds nothing either.
    machine.system.devices.get(THIRD)!.nativeDriver = 'nvme';
    kernel.writeFile('/sys/bus/pci/drivers_probe', THIRD);
    expect(machine.system.devices.get(THIRD)?.driver).toBeUndefined();
    expect(write('pci-stub', 'bind')).toBeGreaterThan(0);
    expect(write('pci-stub', 'unbind')).toBeGreaterThan(0);
    kernel.close(fd);
    expect(write('nvme', 'bind')).toBeGreaterThan(0);
    expect(bind(machine.createProcess(), 1)).toBe('EPERM');
    bench.enable(LEFT);
    expect(reads()).toEqual(SECRET);
  });
});

describe('a device that is plugged into a group', () => {
  const PLACE = '0000:00:09.0';
  const plug = ({ bench }: ReturnType<typeof setUp>, device = new ProbeFunction()) => {
    bench.machine.plug(PLACE, { device, group: 4, driver: null });
    bench.enable(PLACE);
    return device;
  };

  test('that is owned is blocked, and follows the others', () => {
    const world = setUp();
    const { bench } = world;
    const fd = bench.bindNth(0);
    const device = plug(world);
    expect(device.read(bench.secret, 1)).toBeUndefined();
    bench.attach(bench.space(1));
    expect(device.read(bench.secret, 1)).toEqual([1]);
    bench.kernel.close(fd);
    expect(device.read(bench.secret, 1)).toEqual([0x5a]);
  });

  test('that is attached is attached, its PASIDs are not', () => {
    const world = setUp();
    const { bench } = world;
    bench.bindNth(0);
    const hwpt = bench.hwpt(bench.space(1), { flags: uapi.IOMMU_HWPT_ALLOC_PASID });
    bench.attach(hwpt);
    bench.attach(hwpt, 8);
    const device = plug(world);
    expect(device.read(bench.secret, 1)).toEqual([1]);
    expect(device.read(bench.secret, 1, 8)).toBeUndefined();
    expect(world.left.read(bench.secret, 1, 8)).toEqual([1]);
    bench.detach(8);
    bench.detach();
    expect(device.read(bench.secret, 1)).toBeUndefined();
  });

  test('whose table is not for it is in no group, and stays blocked', () => {
    const world = setUp();
    const { bench } = world;
    bench.bindNth(0);
    const { out_fault_id: fault_id } = bench.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    bench.attach(bench.hwpt(bench.space(1), { flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id }));
    const device = plug(world, new ProbeFunction(PLAIN));
    expect(device.read(bench.secret, 1)).toBeUndefined();
    const found = bench.machine.system.devices.get(PLACE)!;
    expect(found.group.id).toBe(-1);
    found.driverOverride = 'vfio-pci';
    expect(bench.machine.system.bindDriver(found, 'vfio-pci')).toBe(-uapi.errno.EINVAL);
    bench.detach();
    expect(device.read(bench.secret, 1)).toBeUndefined();
    expect(bench.kernel.readlink(`/sys/bus/pci/devices/${PLACE}/iommu_group`)).toBeLessThan(0);
    bench.machine.unplug(PLACE);
  });

  test('breaks the group’s viability only by its driver', () => {
    const world = setUp();
    const { bench } = world;
    bench.machine.plug(PLACE, { device: new ProbeFunction(), group: 4, driver: 'nvme' });
    expect(bind(bench.machine.createProcess(), 0)).toBe('EPERM');
    bench.machine.unplug(PLACE);
    const fd = bench.bindNth(0);
    bench.machine.plug(PLACE, { device: new ProbeFunction(), group: 4, driver: 'nvme' });
    expect(bench.machine.system.devices.get(PLACE)?.driver).toBeUndefined();
    bench.kernel.close(fd);
    expect(bench.kernel.readFile('/sys/kernel/iommu_groups/4/type')).toBe('identity\n');
  });
});

test('pass-through needs an IOMMU that has it', () => {
  const iommu = { passthrough: true, capabilities: { PT: 0 } };
  expect(() => new Machine({ iommu })).toThrow(/pass-through/);
  const usual = new Bench();
  expect(usual.kernel.readFile('/sys/kernel/iommu_groups/0/type')).toBe('DMA\n');
  usual.machine.device(LEFT)!.config.write(4, 2, 6);
  expect(usual.probe.read(EFAULT_ADDRESS, 1)).toBeUndefined();
});
