/** Which IOMMU groups follow from where devices sit, and under which requester IDs their DMA comes up. */
import { ACS_ISOLATION, PciBridge } from '../../../lib/sim/devices/bridge';
import type { FunctionDescription } from '../../../lib/sim/devices/config-space';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { Machine, type DeviceOptions, type MachineOptions } from '../../../lib/sim/machine';
import * as uapi from '../../../lib/uapi';
import { Bench } from './bench';
import { PLAIN, PROBE, ProbeFunction } from './probe-function';

const MULTIFUNCTION = { ...PROBE, multifunction: true };
const WITH_ACS: FunctionDescription = {
  ...MULTIFUNCTION,
  extendedCapabilities: [{ kind: 'acs', controls: ACS_ISOLATION }],
};

const probe = (description?: FunctionDescription) => new ProbeFunction(description);
const rootPort = (bus: number, acs?: number) =>
  new PciBridge({ kind: 'root-port', bus, ...(acs === undefined ? {} : { acs }) });

function machineOf(devices: MachineOptions['devices'] = {}): Machine {
  return new Machine({ manual: true, devices });
}

/** Addresses without the domain, by group. */
function groupsOf(machine: Machine): string[] {
  return machine.system.groups.map(({ devices }) => devices.map(({ bdf }) => bdf.slice(5)).join(' '));
}

describe('groups', () => {
  const groups = (devices: Record<string, ProbeFunction | PciBridge | DeviceOptions>) =>
    groupsOf(
      machineOf(Object.fromEntries(Object.entries(devices).map(([bdf, one]) => [`0000:${bdf}`, one]))),
    );

  test('a device on the root bus, and one behind a root port that nobody sees, are alone', () => {
    expect(groups({ '00:06.0': probe(), '00:07.0': probe(PLAIN), '01:00.0': probe() })).toEqual([
      '00:06.0',
      '00:07.0',
      '01:00.0',
    ]);
  });

  test('a port with ACS keeps what is behind it apart, one without takes it in', () => {
    const devices = {
      '00:01.0': rootPort(1),
      '01:00.0': probe(),
      '00:02.0': rootPort(2, 0),
      '02:00.0': probe(),
    };
    expect(groups(devices)).toEqual(['00:01.0', '00:02.0 02:00.0', '01:00.0']);
  });

  test('controls that a port has are enough: what it lacks needs no control', () => {
    expect(groups({ '00:01.0': rootPort(1, pci.ACS_SOURCE_VALIDATION), '01:00.0': probe() })).toHaveLength(2);
  });

  test('every port on the way up counts', () => {
    const behind = (acs: number) => ({
      '00:01.0': rootPort(1, acs),
      '01:00.0': new PciBridge({ kind: 'upstream-port', bus: 2 }),
      '02:00.0': new PciBridge({ kind: 'downstream-port', bus: 3 }),
      '02:01.0': new PciBridge({ kind: 'downstream-port', bus: 4, acs: 0 }),
      '03:00.0': probe(),
      '04:00.0': probe(),
    });
    const together = '00:01.0 01:00.0 02:00.0 02:01.0 03:00.0 04:00.0';
    const apart = ['00:01.0', '01:00.0', '02:00.0', '02:01.0 04:00.0', '03:00.0'];
    expect(groups(behind(0))).toEqual([together]);
    expect(groups(behind(ACS_ISOLATION))).toEqual(apart);
  });

  test('functions of one device are together, unless ACS is between them', () => {
    expect(groups({ '00:06.0': probe(MULTIFUNCTION), '00:06.1': probe(), '00:07.0': probe() })).toEqual([
      '00:06.0 00:06.1',
      '00:07.0',
    ]);
    expect(groups({ '00:06.0': probe(WITH_ACS), '00:06.1': probe(WITH_ACS) })).toHaveLength(2);
    const mixed = { '00:06.0': probe(WITH_ACS), '00:06.1': probe(), '00:06.2': probe(PLAIN) };
    expect(groups(mixed)).toEqual(['00:06.0', '00:06.1 00:06.2']);
  });

  test('devices that use each other’s requester IDs are together, and with them what is beside them', () => {
    const alias = { device: probe(), dmaAlias: '0000:00:07.1' };
    expect(groups({ '00:06.0': alias, '00:07.1': probe(), '00:08.0': probe() })).toEqual([
      '00:06.0 00:07.1',
      '00:08.0',
    ]);
    const first = { device: probe(), dmaAlias: '0000:00:07.0' };
    const devices = { '00:07.0': probe(MULTIFUNCTION), '00:07.1': probe(), '00:08.0': first };
    expect(groups(devices)).toEqual(['00:07.0 00:07.1 00:08.0']);
  });

  test('that holds from one to the next, whichever of them comes first', () => {
    const alias = (function_: string) => ({ device: probe(), dmaAlias: `0000:00:${function_}` });
    const chain = { '00:06.0': alias('08.0'), '00:07.0': alias('08.0'), '00:08.0': probe() };
    expect(groups(chain)).toEqual(['00:06.0 00:07.0 00:08.0']);
    const beside = { '00:07.1': probe(), '00:05.0': alias('07.0'), '00:07.0': probe(MULTIFUNCTION) };
    expect(groups(beside)).toEqual(['00:07.1 00:05.0 00:07.0']);
  });

  test.each(['pcie-to-pci-bridge', 'pci-bridge'] as const)('all behind a %s are together with it', (kind) => {
    const devices = {
      '00:01.0': rootPort(1),
      '01:00.0': new PciBridge({ kind, bus: 2 }),
      '02:01.0': probe(PLAIN),
      '02:02.0': probe(PLAIN),
      '02:03.0': new PciBridge({ kind: 'pci-bridge', bus: 3 }),
      '03:00.0': probe(PLAIN),
    };
    expect(groups(devices)).toEqual(['00:01.0', '01:00.0 02:01.0 02:02.0 02:03.0 03:00.0']);
  });

  test('a group that is named is used as it is', () => {
    const devices = {
      '00:06.0': { device: probe(MULTIFUNCTION), group: 3 },
      '00:06.1': { device: probe(), group: 8 },
    };
    expect(groups(devices)).toEqual(['00:06.0', '00:06.1']);
  });
});

describe('bridges', () => {
  test('are devices in /sys, with what is behind them inside', () => {
    const machine = machineOf({
      '0000:02:00.0': probe(PLAIN),
      '0000:00:01.0': rootPort(1),
      '0000:01:00.0': new PciBridge({ kind: 'pcie-to-pci-bridge', bus: 2 }),
    });
    const kernel = machine.process();
    const bus = '/sys/bus/pci/devices';
    expect(kernel.readdir(bus)).toEqual(['0000:00:01.0', '0000:01:00.0', '0000:02:00.0']);
    const folder = '../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0';
    expect(kernel.readlink(`${bus}/0000:02:00.0`)).toBe(folder);
    expect(kernel.readFile(`${bus}/0000:00:01.0/class`)).toBe('0x060400\n');
    expect(kernel.readFile(`${bus}/0000:00:01.0/0000:01:00.0/0000:02:00.0/vendor`)).toBe('0x1234\n');
    for (const device of ['0000:00:01.0', '0000:02:00.0'])
      for (const target of ['driver', 'iommu_group', 'iommu', 'subsystem'])
        expect(kernel.readdir(`${bus}/${device}/${target}`)).toEqual(expect.any(Array));
    expect(kernel.readlink(`${bus}/0000:00:01.0/driver`)).toBe('../../../bus/pci/drivers/pcieport');
    expect(kernel.readlink(`${bus}/0000:01:00.0/driver`)).toBeLessThan(0);
    expect(kernel.readlink('/sys/class/vfio-dev/vfio0')).toContain(
      '0000:01:00.0/0000:02:00.0/vfio-dev/vfio0',
    );
    const numbers = ['0000:00:01.0', '0000:01:00.0'].map((bdf) =>
      [pci.PRIMARY_BUS, pci.SECONDARY_BUS, pci.SUBORDINATE_BUS].map((at) =>
        machine.device(bdf)?.config.read(at, 1),
      ),
    );
    expect(numbers).toEqual([
      [0, 1, 2],
      [1, 2, 2],
    ]);
  });

  test('are not for programs', () => {
    const machine = machineOf({ '0000:00:01.0': { device: rootPort(1), driver: null } });
    const kernel = machine.process();
    const folder = '/sys/bus/pci/devices/0000:00:01.0';
    kernel.writeFile(`${folder}/driver_override`, 'vfio-pci');
    expect(kernel.writeFile('/sys/bus/pci/drivers/vfio-pci/bind', '0000:00:01.0')).toBe(-uapi.errno.EINVAL);
  });

  test('need a bus of their own, behind the one they sit on', () => {
    const machine = machineOf({ '0000:00:01.0': rootPort(3), '0000:05:00.0': probe() });
    for (const bus of [0, 256, 1.5]) expect(() => rootPort(bus)).toThrow(RangeError);
    for (const [bdf, bus] of [
      ['0000:00:02.0', 3],
      ['0000:00:02.0', 5],
      ['0000:03:00.0', 2],
      ['0000:03:00.0', 3],
    ] as const)
      expect(() => machine.plug(bdf, { device: rootPort(bus) })).toThrow(RangeError);
    machine.plug('0000:03:00.0', { device: rootPort(4) });
    const elsewhere = { device: probe(), dmaAlias: '0000:00:06.0' };
    expect(() => machine.plug('0000:04:00.0', elsewhere)).toThrow(/not on the bus/);
  });

  test('are pulled out with what is behind them, and can be plugged in again', () => {
    const machine = machineOf({
      '0000:00:01.0': rootPort(1),
      '0000:01:00.0': rootPort(2),
      '0000:02:00.0': probe(),
    });
    machine.unplug('0000:00:01.0');
    expect([...machine.system.devices.keys()]).toEqual([]);
    expect(groupsOf(machine)).toEqual([]);
    machine.plug('0000:00:01.0', { device: rootPort(1, 0) });
    machine.plug('0000:01:00.0', { device: probe() });
    expect(groupsOf(machine)).toEqual(['00:01.0 01:00.0']);
  });

  test('a hot reset reaches what is behind them', () => {
    const deep = probe();
    const devices = {
      '0000:01:00.0': probe(),
      '0000:01:01.0': { device: new PciBridge({ kind: 'pci-bridge', bus: 2 }) },
      '0000:02:00.0': deep,
    };
    const machine = machineOf({ '0000:00:01.0': rootPort(1), ...devices });
    const bus = machine.system.bus(1)!;
    expect(bus.all.map(({ bdf }) => bdf)).toEqual(Object.keys(devices));
    bus.reset();
    expect(deep.resets).toBe(1);
    expect(machine.device('0000:01:01.0')?.config.read(pci.SECONDARY_BUS, 1)).toBe(2);
    // The bridge is not vfio-pci's, so that no program may reset it.
    expect(bus.isVfios).toBe(false);
  });
});

/** Two devices behind a bridge, bound and attached, with a page of memory. */
function behind(kind: 'pcie-to-pci-bridge' | 'pci-bridge') {
  const [left, right] = [probe(PLAIN), probe(PLAIN)];
  const devices = {
    '0000:00:01.0': rootPort(1),
    '0000:01:00.0': new PciBridge({ kind, bus: 2 }),
    '0000:02:01.0': left,
    '0000:02:02.0': right,
  };
  const bench = new Bench({ devices }, left);
  const ioas = bench.ioas();
  bench.map(ioas, 0x1000, bench.memory().address);
  const [first, second] = ['/dev/vfio/devices/vfio0', '/dev/vfio/devices/vfio1'].map((path) => {
    bench.bind(path);
    bench.attach(ioas);
    return bench.vfio;
  });
  return { bench, left, right, first, second };
}

describe('aliases', () => {
  test.each([
    ['pcie-to-pci-bridge', '0000:02:00.0', 0x200],
    ['pci-bridge', '0000:01:00.0', 0x100],
  ] as const)('DMA through a %s comes up as %s, and is translated', (kind, _name, rid) => {
    const { bench, left, right, first, second } = behind(kind);
    expect(left.write(0x1000, [7])).toBe(true);
    expect(right.read(0x1000, 1)).toEqual([7]);
    expect(right.read(0x9000, 1)).toBeUndefined();
    bench.machine.idle();
    expect(bench.machine.refusedDma.at(-1)).toMatchObject({ rid, address: 0x9000n });
    for (const fd of [first, second]) bench.call(uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}, fd);
    expect(left.read(0x1000, 1)).toBeUndefined();
  });

  test('what shares an alias keeps it when the other is pulled out', () => {
    const { bench, right, first, second } = behind('pcie-to-pci-bridge');
    expect(right.read(0x1000, 1)).toEqual([0]);
    // The first had the table that the alias pointed to.
    bench.kernel.close(first);
    bench.machine.unplug('0000:02:01.0');
    expect(right.read(0x1000, 1)).toEqual([0]);
    bench.kernel.close(second);
    bench.machine.unplug('0000:02:02.0');
    const fresh = probe(PLAIN);
    bench.machine.plug('0000:02:01.0', { device: fresh });
    bench.bind();
    expect(fresh.read(0x1000, 1)).toBeUndefined();
  });

  test('a device that uses another’s requester ID is translated, and so are its messages under its own', () => {
    const device = probe();
    const bench = new Bench({ devices: { '0000:00:06.0': { device, dmaAlias: '0000:00:06.1' } } }, device);
    bench.bind();
    const ioas = bench.ioas();
    bench.map(ioas, 0x1000, bench.memory().address);
    bench.attach(ioas);
    expect(device.read(0x1000, 1)).toEqual([0]);
    expect(device.read(0x9000, 1)).toBeUndefined();
    bench.machine.idle();
    expect(bench.machine.refusedDma.at(-1)).toMatchObject({ rid: 0x31 });
    const event = bench.eventfd();
    expect(bench.interrupts(uapi.VFIO_PCI_MSIX_IRQ_INDEX, [event])).toBe(0);
    device.interrupt(0);
    bench.machine.idle();
    expect(bench.count(event)).toBe(1);
    expect(bench.machine.refusedInterrupts).toEqual([]);
  });

  test('a message that nobody allows is the device’s, not its alias’s', () => {
    const device = probe();
    const bench = new Bench({ devices: { '0000:00:06.0': { device, dmaAlias: '0000:00:06.1' } } }, device);
    bench.bind();
    expect(device.write(0xfee0_0010, [0, 0, 0, 0])).toBe(true);
    bench.machine.idle();
    expect(bench.machine.refusedInterrupts).toMatchObject([{ rid: 0x30 }]);
  });

  test.each([
    [undefined, 1],
    ['0000:00:06.1', 2],
  ])('of a device with the alias %s messages are told by their bus at most', (dmaAlias, delivered) => {
    const [device, neighbour] = [probe(), probe()];
    const options = dmaAlias === undefined ? { device } : { device, dmaAlias };
    const bench = new Bench({ devices: { '0000:00:06.0': options, '0000:00:09.0': neighbour } }, device);
    const { system } = bench.machine;
    let count = 0;
    const vector = system.messagesOf(system.devices.get('0000:00:06.0')!).allocateBlock(1, () => count++)!;
    for (const each of [device, neighbour]) {
      each.config.write(4, 2, 6);
      each.write(vector.addressLow, [vector.data, 0, 0, 0]);
    }
    bench.machine.idle();
    expect(count).toBe(delivered);
  });

  const MSI: FunctionDescription = {
    ...PLAIN,
    capabilities: [{ kind: 'msi', vectors: 1, wide: true, maskable: false }],
  };

  const bridge = (kind: 'pcie-to-pci-bridge' | 'pci-bridge', bus: number) => new PciBridge({ kind, bus });

  test.each([
    ['a PCI Express to PCI bridge', { '0000:00:01.0': bridge('pcie-to-pci-bridge', 1) }, '0000:01:05.0'],
    ['a conventional bridge', { '0000:00:01.0': bridge('pci-bridge', 1) }, '0000:01:05.0'],
    [
      'both',
      { '0000:00:01.0': bridge('pcie-to-pci-bridge', 1), '0000:01:02.0': bridge('pci-bridge', 2) },
      '0000:02:05.0',
    ],
  ])('messages through %s arrive', (_name, bridges, bdf) => {
    const device = probe(MSI);
    const devices = { ...bridges, [bdf]: device };
    const bench = new Bench({ devices }, device);
    bench.bind();
    const event = bench.eventfd();
    expect(bench.interrupts(uapi.VFIO_PCI_MSI_IRQ_INDEX, [event])).toBe(0);
    device.interrupt(0);
    bench.machine.idle();
    expect(bench.count(event)).toBe(1);
    expect(bench.machine.refusedInterrupts).toEqual([]);
  });
});
