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

  test('a wait that is given up swallows no interrupt', async () => {
    const { device } = openEdu();
    const interrupt = device.interrupt('msi');
    const left = interrupt[Symbol.asyncIterator]();
    const abandoned = left.next();
    await left.return!();
    expect(await abandoned).toEqual({ value: undefined, done: true });
    await expect(interrupt.next({ timeout: 5 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const controller = new AbortController();
    const aborted = interrupt.next({ signal: controller.signal });
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
    interrupt.trigger();
    expect(await interrupt.next()).toBe(1);
    interrupt.trigger();
    expect(await interrupt.next({ timeout: 0 })).toBe(1);
  });

  test('INTx by next(): masked until the next is asked for, or somebody listens', async () => {
    const { device } = openEdu();
    const { bar } = new Edu(device);
    const interrupt = device.interrupt('intx');
    const acknowledge = () => bar.write32(INTERRUPT_ACKNOWLEDGE, bar.read32(INTERRUPT_STATUS));
    for (let round = 0; round < 3; round++) {
      bar.write32(INTERRUPT_RAISE, 1);
      expect(await interrupt.next()).toBeGreaterThanOrEqual(1);
      acknowledge();
    }
    let heard = 0;
    interrupt.on('interrupt', () => {
      acknowledge();
      heard++;
    });
    bar.write32(INTERRUPT_RAISE, 1);
    await until(() => heard > 0);
    expect(bar.read32(INTERRUPT_STATUS)).toBe(0);
  });

  test('listeners may all be removed, and others added', async () => {
    const { device } = openEdu();
    const interrupt = device.interrupt('msi');
    const heard: string[] = [];
    interrupt.on('interrupt', () => heard.push('first'));
    interrupt.removeAllListeners();
    interrupt.trigger();
    interrupt.once('interrupt', (count) => heard.push(`second ${count}`));
    await until(() => heard.length > 0);
    interrupt.on('interrupt', () => heard.push('third'));
    interrupt.removeAllListeners('interrupt');
    interrupt.on('interrupt', () => heard.push('fourth'));
    interrupt.trigger();
    await until(() => heard.length > 1);
    expect(heard).toEqual(['second 1', 'fourth']);
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
    const closed = { code: 'EBADF', reason: 'msi interrupt 0 is closed' };
    expect(errorOf(() => interrupt.trigger())).toMatchObject({ ...closed, request: 'VFIO_DEVICE_SET_IRQS' });
    expect(errorOf(() => interrupt.on('interrupt', () => {}))).toMatchObject({ ...closed, syscall: 'poll' });
    expect(errorOf(() => interrupt.once('interrupt', () => {}))).toMatchObject(closed);
    expect(interrupt.listenerCount('interrupt')).toBe(0);
    await expect(interrupt.next()).rejects.toMatchObject({ ...closed, syscall: 'read' });
  });
});
