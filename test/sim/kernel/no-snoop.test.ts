/** No-snoop DMA (RFC, section 1.5): the four boxes, what address spaces enforce, hints, and what KVM is told. */
import { ACCESS_NO_SNOOP, ACCESS_READ, NO_PASID } from '../../../lib/sim/bus';
import type { FunctionDescription } from '../../../lib/sim/devices/config-space';
import * as pci from '../../../lib/sim/devices/pci-registers';
import type { MachineOptions } from '../../../lib/sim/machine';
import * as uapi from '../../../lib/uapi';
import * as proposal from '../../../lib/uapi/proposal/no-snoop';
import { Bench, PAGE, PROBE_BDF } from './bench';
import { PROBE, ProbeFunction } from './probe-function';

const IOVA = 0x1000;
const { IOMMU_IOASID_ENFORCE_SNOOP: ENFORCE, IOMMU_NO_SNOOP_QUERY: QUERY } = proposal;
const { IOMMU_NO_SNOOP_NOTIFY: NOTIFY, VFIO_DEVICE_NO_SNOOP_HINT: HINT } = proposal;
const {
  IOMMU_IOASID_ENFORCE_SNOOP_AUTO: AUTO,
  IOMMU_IOASID_ENFORCE_SNOOP_ENABLE: ENABLE,
  IOMMU_IOASID_ENFORCE_SNOOP_DISABLE: DISABLE,
} = proposal;

/** A device that reads with the No Snoop attribute. */
class Careless extends ProbeFunction {
  readCareless(iova = IOVA, pasid = NO_PASID): boolean {
    return this.dmaRead(pasid, 0, iova, new Uint8Array(8), 0, 8, ACCESS_READ | ACCESS_NO_SNOOP) === 8;
  }
}

/** One whose Enable No Snoop bit is hardwired to 0. */
const CAREFUL: FunctionDescription = {
  ...PROBE,
  capabilities: PROBE.capabilities!.map((capability) =>
    capability.kind === 'express' ? { ...capability, noSnoop: false } : capability,
  ),
};

const WITH = { SC: 1 };
const WITHOUT = { SC: 0 };
/** The IOMMU uses second-stage tables. */
const SECOND = { FSTS: 0 };

class SnoopBench extends Bench {
  constructor(
    capabilities: object = {},
    readonly careless = new Careless(),
    options: MachineOptions = {},
  ) {
    super({ devices: { [PROBE_BDF]: careless }, iommu: { capabilities }, ...options }, careless);
    this.bind();
  }

  /** A space with a page at IOVA. */
  space(mode?: number): number {
    const ioas_id = this.ioas();
    this.map(ioas_id, IOVA, this.memory().address);
    if (mode !== undefined) this.call(ENFORCE, { ioas_id, mode });
    return ioas_id;
  }

  get needed(): boolean {
    return this.call(QUERY, {}).out_needed === 1;
  }

  hint(hint: number): void {
    this.call(HINT, { hint }, this.vfio);
  }

  /** How many of the accesses since the last look did not snoop. */
  unsnooped(read = () => this.careless.readCareless()): number {
    const before = this.machine.unsnoopedDma.length;
    expect(read()).toBe(true);
    return this.machine.unsnoopedDma.length - before;
  }
}

describe('the four boxes: IOMMU enforces snooping or cannot, device can leave it out or cannot', () => {
  const boxes = [
    [1, WITH, PROBE, 0, false],
    [2, WITH, CAREFUL, 0, false],
    [3, WITHOUT, PROBE, 1, true],
    [4, WITHOUT, CAREFUL, 0, false],
  ] as const;

  test.each(boxes)('box %i, as mainline has it', (_box, capabilities, description, unsnooped, needed) => {
    for (const stage of [{}, SECOND]) {
      const bench = new SnoopBench({ ...capabilities, ...stage }, new Careless(description));
      bench.attach(bench.space());
      expect(bench.unsnooped()).toBe(unsnooped);
      expect(bench.needed).toBe(needed);
    }
  });

  test.each(boxes)('box %i in a space that enforces', (_box, capabilities, description) => {
    const bench = new SnoopBench(capabilities, new Careless(description));
    const space = bench.space(ENABLE);
    if (capabilities === WITHOUT) {
      const attach = uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
      expect(bench.result(attach, { pt_id: space, argsz: 12 }, bench.vfio)).toBe('EINVAL');
      expect(bench.result(uapi.IOMMU_HWPT_ALLOC, { dev_id: bench.device, pt_id: space })).toBe('EINVAL');
      expect(bench.careless.readCareless()).toBe(false);
      return;
    }
    bench.attach(space);
    expect(bench.unsnooped()).toBe(0);
    expect(bench.needed).toBe(false);
  });

  test.each(boxes)('box %i in a space that does not', (_box, capabilities, description) => {
    const can = Number(description === PROBE);
    for (const stage of [{}, SECOND]) {
      const bench = new SnoopBench({ ...capabilities, ...stage }, new Careless(description));
      bench.attach(bench.space(DISABLE));
      expect(bench.unsnooped()).toBe(can);
      expect(bench.needed).toBe(can === 1);
    }
  });
});

describe('hardware', () => {
  test('Enable No Snoop in Device Control is the device’s own', () => {
    const bench = new SnoopBench(WITHOUT);
    bench.attach(bench.space());
    const { config } = bench.careless;
    const at = config.capability(pci.CAPABILITY_EXPRESS) + pci.EXPRESS_DEVICE_CONTROL;
    config.write(at, 2, config.read(at, 2) & ~pci.EXPRESS_NO_SNOOP);
    expect(bench.unsnooped()).toBe(0);
    // A program may set it, as on Linux: what a device can do is what counts.
    expect(bench.needed).toBe(true);
    bench.config(at, ...[0x10, 0x28]);
    expect(bench.unsnooped()).toBe(1);
  });

  test('what is logged says who, where and how much', () => {
    const bench = new SnoopBench(WITHOUT);
    bench.attach(bench.space());
    bench.unsnooped();
    const entry = { rid: 0x30, write: false, address: BigInt(IOVA), length: 8 };
    expect(bench.machine.unsnoopedDma).toEqual([entry]);
    for (let i = 0; i < 300; i++) bench.careless.readCareless();
    expect(bench.machine.unsnoopedDma).toHaveLength(256);
  });

  test('without an IOMMU nothing is enforced', () => {
    const device = new Careless();
    const bench = new Bench({ devices: { [PROBE_BDF]: device }, iommu: 'none' }, device);
    device.config.write(4, 2, 6);
    expect(device.readCareless(bench.machine.memory.allocatePage())).toBe(true);
    expect(bench.machine.unsnoopedDma).toHaveLength(1);
  });

  test('the tables say it: SNP in the leaf of a second stage, PGSNP for a first stage and a nested one', () => {
    const bench = new SnoopBench();
    const translated = (iova: number) => bench.careless.ask(iova).snooped;
    bench.attach(bench.space());
    expect(translated(IOVA)).toBe(true);
    bench.attach(bench.space(DISABLE));
    expect(translated(IOVA)).toBe(false);
    const second = new SnoopBench(SECOND);
    second.attach(second.space());
    expect(second.careless.ask(IOVA).snooped).toBe(true);
    // Mappings that come after the table do too.
    const space = second.space();
    second.attach(space);
    second.map(space, 0x20_0000, second.memory().address);
    expect(second.careless.ask(0x20_0000).snooped).toBe(true);
  });

  test('a PASID’s space is looked at for itself', () => {
    const bench = new SnoopBench();
    const flags = uapi.IOMMU_HWPT_ALLOC_PASID;
    bench.attach(bench.hwpt(bench.space(), { flags }));
    bench.attach(bench.hwpt(bench.space(DISABLE), { flags }), 7);
    expect(bench.unsnooped()).toBe(0);
    expect(bench.unsnooped(() => bench.careless.readCareless(IOVA, 7))).toBe(1);
    expect(bench.needed).toBe(true);
    bench.detach(7);
    expect(bench.needed).toBe(false);
  });

  test('a nested table snoops as its parent does', () => {
    for (const [mode, unsnooped] of [
      [AUTO, 0],
      [DISABLE, 1],
    ]) {
      const bench = new SnoopBench();
      const memory = bench.memory(4 * PAGE);
      const ioas_id = bench.ioas();
      bench.call(ENFORCE, { ioas_id, mode });
      bench.map(ioas_id, 0, memory.address, 4 * PAGE);
      const parent = bench.hwpt(ioas_id, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
      // Guest tables at 0, 0x1000 and 0x2000 lead page 1 to 0x3000 by a 2 MiB entry.
      const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset);
      view.setBigUint64(0, 0x1007n, true);
      view.setBigUint64(0x1000, 0x2007n, true);
      view.setBigUint64(0x2000, 0x87n, true);
      const data = bench.memory();
      data.bytes.set(uapi.iommu_hwpt_vtd_s1.encode({ pgtbl_addr: 0, addr_width: 48 }));
      const user = { data_type: uapi.IOMMU_HWPT_DATA_VTD_S1, data_len: 24, data_uptr: data.address };
      bench.attach(bench.hwpt(parent, user));
      expect(bench.unsnooped()).toBe(unsnooped);
      expect(bench.needed).toBe(unsnooped === 1);
    }
  });
});

describe('what an address space is told', () => {
  test('is told before anything has a table of it', () => {
    const bench = new SnoopBench();
    const ioas_id = bench.space();
    const set = (mode: number, more = {}) => bench.result(ENFORCE, { ioas_id, mode, ...more });
    expect([set(ENABLE), set(DISABLE), set(AUTO)]).toEqual([0, 0, 0]);
    expect(set(3)).toBe('EINVAL');
    expect(set(ENABLE, { flags: 1 })).toBe('EOPNOTSUPP');
    expect(set(ENABLE, { ioas_id: bench.device })).toBe('ENOENT');
    expect(set(ENABLE, { size: 12 })).toBe('EINVAL');
    bench.attach(ioas_id);
    expect(set(DISABLE)).toBe('EBUSY');
    bench.detach();
    expect(set(DISABLE)).toBe(0);
  });

  test('a space that enforces keeps devices of other IOMMUs out', () => {
    const bench = new SnoopBench({}, new Careless(), { selftest: true });
    const enforcing = bench.ioas();
    bench.call(ENFORCE, { ioas_id: enforcing, mode: ENABLE });
    bench.attach(enforcing);
    const mock = (id: number) =>
      bench.result(uapi.IOMMU_TEST_CMD, { op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN, id });
    expect(mock(enforcing)).toBe('EINVAL');
    expect(bench.needed).toBe(false);
    expect(mock(bench.ioas())).toBe(0);
    // Nobody knows what a mock device does.
    expect(bench.needed).toBe(true);
  });
});

describe('the hint', () => {
  test('takes a device out that could and does not, in box 3 and where snooping is not enforced', () => {
    for (const [capabilities, mode] of [
      [WITHOUT, AUTO],
      [WITH, DISABLE],
    ] as const) {
      const bench = new SnoopBench(capabilities);
      bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_UNUSED);
      bench.attach(bench.space(mode));
      expect(bench.needed).toBe(false);
      bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_USED);
      expect(bench.needed).toBe(true);
      bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_UNUSED);
      bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_DEFAULT);
      expect(bench.needed).toBe(true);
    }
  });

  test('makes no device do what it cannot, and no IOMMU less than it does', () => {
    for (const [capabilities, description] of [
      [WITHOUT, CAREFUL],
      [WITH, PROBE],
    ] as const) {
      const bench = new SnoopBench(capabilities, new Careless(description));
      bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_USED);
      bench.attach(bench.space());
      expect(bench.needed).toBe(false);
    }
  });

  test('is checked', () => {
    const bench = new SnoopBench();
    const say = (values: object) => bench.result(HINT, values, bench.vfio);
    expect(say({ hint: 3 })).toBe('EINVAL');
    expect(say({ flags: 1 })).toBe('EINVAL');
    expect(say({ argsz: 8 })).toBe('EINVAL');
    const unbound = bench.open('/dev/vfio/devices/vfio0');
    expect(bench.result(HINT, {}, unbound)).toBe('EINVAL');
  });
});

describe('KVM', () => {
  test('is told of changes, and of nothing else', () => {
    const bench = new SnoopBench(WITHOUT);
    const event = bench.eventfd();
    bench.call(NOTIFY, { eventfd: event });
    const space = bench.space();
    expect(bench.count(event)).toBe(0);
    bench.attach(space);
    expect(bench.count(event)).toBe(1);
    bench.attach(bench.space());
    expect(bench.count(event)).toBe(0);
    bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_UNUSED);
    expect(bench.count(event)).toBe(1);
    bench.detach();
    bench.hint(proposal.VFIO_DEVICE_NO_SNOOP_DEFAULT);
    expect(bench.count(event)).toBe(0);
    bench.attach(space);
    bench.kernel.close(bench.vfio);
    expect(bench.count(event)).toBe(2);
  });

  test('is told when a table that enforces takes the place of one that does not', () => {
    const bench = new SnoopBench(WITH);
    const event = bench.eventfd();
    bench.call(NOTIFY, { eventfd: event });
    for (const mode of [DISABLE, AUTO, DISABLE]) bench.attach(bench.space(mode));
    expect(bench.count(event)).toBe(3);
  });

  test('one eventfd at a time, until it is taken back', () => {
    const bench = new SnoopBench(WITHOUT);
    const [one, two] = [bench.eventfd(), bench.eventfd()];
    const notify = (eventfd: number, more = {}) => bench.result(NOTIFY, { eventfd, ...more });
    expect([notify(one), notify(two)]).toEqual([0, 0]);
    bench.attach(bench.space());
    expect([one, two].map((fd) => bench.count(fd))).toEqual([0, 1]);
    expect(notify(-1)).toBe(0);
    bench.detach();
    expect(bench.count(two)).toBe(0);
    expect(notify(99)).toBe('EBADF');
    expect(notify(bench.fd)).toBe('EINVAL');
    expect(notify(one, { flags: 1 })).toBe('EOPNOTSUPP');
    expect(bench.result(QUERY, { flags: 1 })).toBe('EOPNOTSUPP');
  });

  test('asks one iommufd: what another has does not matter', () => {
    const bench = new SnoopBench(WITHOUT);
    bench.attach(bench.space());
    expect(bench.result(QUERY, {}, bench.fd)).toBe(0);
    const { out_needed } = bench.call(QUERY, {}, bench.open());
    expect(out_needed).toBe(0);
  });
});
