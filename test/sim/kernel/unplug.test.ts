/**
 * A device with a translation cache is pulled out while it is in use: its invalidations time out, and neither the
 * program that had it nor any other device may suffer for that.
 */
import { Iommu, type Device } from '../../../lib';
import { CONTROL_START, DmaEngine, dmaEngine, Machine, OPERATION_FILL, STATUS_BUSY } from '../../../lib/sim';

const ENGINE = '0000:00:05.0';
const EDU = '0000:00:04.0';

/** Has the engine fill 64 bytes at `iova` with a pattern. */
function fill(engine: Device, iova: bigint): void {
  engine.enableBusMaster();
  const bar = engine.region('bar0');
  bar.write64(dmaEngine.DESTINATION, iova);
  bar.write32(dmaEngine.LENGTH, 64);
  bar.write32(dmaEngine.PATTERN, 0x5a5a5a5a);
  bar.write32(dmaEngine.CONTROL, CONTROL_START | OPERATION_FILL);
  while (bar.read32(dmaEngine.STATUS) & STATUS_BUSY);
}

function inUse(faults: boolean, pasid: boolean) {
  const machine = new Machine();
  const iommu = Iommu.open({ backend: machine });
  const engine = iommu.bind(ENGINE, { cookie: 1 });
  const edu = iommu.bind(EDU, { cookie: 2 });
  const options = faults ? { faults: iommu.createFaultQueue(), pasid: true } : { pasid: true };
  const space = iommu.createAddressSpace(options);
  engine.attach(space);
  if (pasid) engine.attach(space, { pasid: 3 });
  const plain = iommu.createAddressSpace();
  edu.attach(plain);
  for (const each of [space, plain]) each.map(iommu.allocateDma(8192));
  return { machine, iommu, engine, edu, space, plain };
}

const CASES = [false, true].flatMap((faults) => [false, true].map((pasid) => [faults, pasid] as const));

describe.each(CASES)('pulled out, with faults %s, with a PASID %s', (faults, pasid) => {
  test('everything can be unmapped, detached and closed, in any order', () => {
    for (const first of ['unmap', 'detach', 'device', 'space'] as const) {
      const { machine, iommu, engine, space } = inUse(faults, pasid);
      machine.unplug(ENGINE);
      if (first === 'unmap') space.unmapAll();
      if (first === 'detach') engine.detach();
      if (first === 'device') engine.close();
      if (first === 'space') space.close();
      iommu.close();
      expect([...machine.system.devices.keys()]).toEqual([EDU]);
      expect(machine.system.groups.every(({ owner }) => owner === undefined)).toBe(true);
    }
  });

  test('another device goes on', () => {
    const { machine, iommu, edu, plain } = inUse(faults, pasid);
    machine.unplug(ENGINE);
    plain.unmapAll();
    edu.enableBusMaster();
    expect(edu.region('bar0').read32(0)).toBe(0x010000ed);
    edu.detach();
    iommu.close();
  });

  test('a second run finds the machine in order, and a new device in the place of the old one', () => {
    const { machine, iommu, engine: old, space: before } = inUse(faults, pasid);
    // The unit has the old device's entries in its caches.
    fill(old, before.mappings[0].iova);
    machine.unplug(ENGINE);
    iommu.close();
    machine.plug(ENGINE, { device: new DmaEngine() });
    const again = Iommu.open({ backend: machine });
    const engine = again.bind(ENGINE, { cookie: 1 });
    const queue = again.createFaultQueue();
    const space = again.createAddressSpace({ faults: queue });
    engine.attach(space);
    expect(engine.hardwareInfo().capabilities.ats).toBe(true);
    const buffer = again.allocateDma(4096);
    fill(engine, space.map(buffer).iova);
    expect(buffer.bytes.subarray(0, 65)).toEqual(new Uint8Array(65).fill(0x5a, 0, 64));
    again.close();
  });
});
