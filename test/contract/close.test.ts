import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { backend, EDU, errorOf, kernel, open, openEdu, PAGE } from './support';

describe('close order', () => {
  test('closing the Iommu closes everything, whatever is attached, mapped or listened to', async () => {
    const { iommu, device } = openEdu();
    const space = iommu.createAddressSpace();
    const queue = iommu.createFaultQueue();
    const withFaults = iommu.createAddressSpace({ faults: queue });
    const buffer = iommu.allocateDma(PAGE);
    device.attach(space);
    const mapping = space.map(buffer);
    const bar = device.region('bar0');
    const interrupt = device.interrupt('msi');
    const nextFault = queue[Symbol.asyncIterator]().next();
    const nextInterrupt = interrupt[Symbol.asyncIterator]().next();
    iommu.close();
    for (const handle of [iommu, device, space, withFaults, queue, buffer, bar, interrupt])
      expect(handle.closed).toBe(true);
    expect(mapping.mapped).toBe(false);
    expect(await nextFault).toEqual({ value: undefined, done: true });
    expect(await nextInterrupt).toEqual({ value: undefined, done: true });
    expect(() => bar.read32(0)).toThrow('EBADF');
  });

  test('nothing is left behind that a second run trips over', () => {
    for (let round = 0; round < 5; round++) {
      const { iommu, device } = openEdu();
      const space = iommu.createAddressSpace();
      device.attach(space);
      space.map(iommu.allocateDma(PAGE), { iova: 0x10_0000n });
      device.region('bar0').read32(0);
      device.interrupt('intx');
      iommu.close();
      expect([iommu, device, space].map(({ closed }) => closed)).toEqual([true, true, true]);
    }
  });

  test('descriptors are given back', () => {
    const raw = kernel();
    const lowest = raw.eventfd(0, 0);
    raw.close(lowest);
    const { iommu, device } = openEdu();
    device.attach(iommu.createAddressSpace());
    device.region('bar0');
    device.interrupt('msi');
    iommu.createFaultQueue();
    iommu.allocateDma(PAGE, { memfd: true });
    iommu.close();
    const again = raw.eventfd(0, 0);
    raw.close(again);
    expect(again).toBe(lowest);
  });

  test('any order by hand is fine', () => {
    const { iommu, device } = openEdu();
    const space = iommu.createAddressSpace();
    const buffer = iommu.allocateDma(PAGE);
    device.attach(space);
    space.map(buffer);
    buffer.close();
    space.close();
    device.close();
    iommu.close();
    const again = openEdu();
    expect(again.iommu.createAddressSpace().ioasid).toBe(1);
    expect(again.device.attached()).toBeUndefined();
  });

  test('a program whose waits were given up ends by itself', () => {
    const program = `
      const { Iommu } = require(${JSON.stringify(join(__dirname, '../../lib'))});
      const iommu = Iommu.open({ backend: '${backend}' });
      const device = iommu.bind('${EDU}', { cookie: 1 });
      const sources = [iommu.createFaultQueue(), device.interrupt('msi')];
      (async () => {
        for (const source of sources) {
          const iterator = source[Symbol.asyncIterator]();
          const waiting = iterator.next();
          await iterator.return();
          console.log((await waiting).done);
          await source.next({ timeout: 1 }).catch((error) => console.log(error.code));
        }
      })();`;
    const { stdout, status } = spawnSync(process.execPath, ['--eval', program], {
      encoding: 'utf8',
      timeout: 50_000,
    });
    expect({ stdout, status }).toEqual({ stdout: 'true\nETIMEDOUT\n'.repeat(2), status: 0 });
  });

  test('using declarations close in the right order', () => {
    {
      using iommu = open();
      using device = iommu.bind('00:04.0', { cookie: 1 });
      using space = iommu.createAddressSpace();
      using buffer = iommu.allocateDma(PAGE);
      device.attach(space);
      using mapping = space.map(buffer);
      expect(mapping.mapped).toBe(true);
    }
    openEdu();
  });

  test('a fault queue outlives the spaces that use it', () => {
    const iommu = open();
    const queue = iommu.createFaultQueue();
    const space = iommu.createAddressSpace({ faults: queue });
    expect(errorOf(() => queue.close())).toMatchObject({ code: 'EBUSY', request: 'IOMMU_DESTROY' });
    space.close();
    queue.close();
    expect(() => iommu.createAddressSpace({ faults: queue })).toThrow('is closed');
    expect(errorOf(() => iommu.createAddressSpace({ faults: queue }))).toMatchObject({ code: 'EBADF' });
  });
});
