import { Edu, INTERRUPT_ACKNOWLEDGE, INTERRUPT_RAISE, INTERRUPT_STATUS } from './edu';
import { errorOf, openEdu, until } from './support';

describe('interrupts', () => {
  test('INTx reaches listeners, and again after the device was silenced', async () => {
    const { device } = openEdu();
    const { bar } = new Edu(device);
    const interrupt = device.interrupt('intx');
    const seen: number[] = [];
    interrupt.on('interrupt', () => {
      const status = bar.read32(INTERRUPT_STATUS);
      seen.push(status);
      bar.write32(INTERRUPT_ACKNOWLEDGE, status);
    });
    bar.write32(INTERRUPT_RAISE, 0x10);
    await until(() => seen.includes(0x10));
    bar.write32(INTERRUPT_RAISE, 0x20);
    await until(() => seen.includes(0x20));
    expect(bar.read32(INTERRUPT_STATUS)).toBe(0);
  });

  test('INTx as an iteration: masked until the loop asks for the next', async () => {
    const { device } = openEdu();
    const { bar } = new Edu(device);
    using interrupt = device.interrupt('intx');
    bar.write32(INTERRUPT_RAISE, 1);
    let rounds = 0;
    for await (const count of interrupt) {
      expect(count).toBeGreaterThanOrEqual(1);
      bar.write32(INTERRUPT_ACKNOWLEDGE, bar.read32(INTERRUPT_STATUS));
      if (++rounds === 3) break;
      bar.write32(INTERRUPT_RAISE, 1);
    }
    expect(rounds).toBe(3);
  });

  test('MSI reaches an iteration', async () => {
    const { device } = openEdu();
    const { bar } = new Edu(device);
    const interrupt = device.interrupt('msi');
    const iterator = interrupt[Symbol.asyncIterator]();
    const first = iterator.next();
    bar.write32(INTERRUPT_RAISE, 4);
    expect(await first).toEqual({ value: 1, done: false });
    bar.write32(INTERRUPT_ACKNOWLEDGE, 4);
    const second = iterator.next();
    bar.write32(INTERRUPT_RAISE, 8);
    expect(await second).toEqual({ value: 1, done: false });
  });

  test('the kernel can trigger one, and counts what nobody listens to', async () => {
    const { device } = openEdu();
    const interrupt = device.interrupt('msi');
    for (let i = 0; i < 3; i++) interrupt.trigger();
    expect(await interrupt[Symbol.asyncIterator]().next()).toEqual({ value: 3, done: false });
  });

  test('one kind at a time, one vector once', () => {
    const { device } = openEdu();
    const msi = device.interrupt('msi');
    expect(errorOf(() => device.interrupt('msi'))).toMatchObject({ code: 'EBUSY' });
    expect(errorOf(() => device.interrupt('intx'))).toMatchObject({
      code: 'EINVAL',
      request: 'VFIO_DEVICE_SET_IRQS',
    });
    msi.close();
    device.interrupt('intx').close();
    device.interrupt('msi').close();
  });

  test('what is not there', () => {
    const { device } = openEdu();
    expect(errorOf(() => device.interrupt('msix'))).toMatchObject({ code: 'EOPNOTSUPP' });
    expect(() => device.interrupt('msi', 40)).toThrow(RangeError);
    expect(() => device.interrupt('msi', -1)).toThrow(RangeError);
    expect(() => device.interrupt('irq' as 'msi')).toThrow(TypeError);
  });

  test('close ends iterations; use after close is EBADF', async () => {
    const { device } = openEdu();
    const interrupt = device.interrupt('msi');
    const waiting = interrupt[Symbol.asyncIterator]().next();
    device.close();
    expect(await waiting).toEqual({ value: undefined, done: true });
    expect(interrupt.closed).toBe(true);
    interrupt.close();
    expect(() => interrupt.trigger()).toThrow('EBADF: msi interrupt 0 is closed');
  });
});
