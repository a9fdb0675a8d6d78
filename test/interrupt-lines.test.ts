/** What VFIO_DEVICE_SET_IRQS is told, where a device has more vectors than edu. */
import { Interrupt, InterruptLines } from '../lib/interrupt';
import * as uapi from '../lib/uapi';
import { ScriptedKernel } from './scripted-kernel';

const TRIGGER = uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
const EVENTFD = uapi.VFIO_IRQ_SET_DATA_EVENTFD;
const NONE = uapi.VFIO_IRQ_SET_DATA_NONE;

function setUp(kind: 'msi' | 'msix', count: number, flags: number, results: number[] = []) {
  const kernel = new ScriptedKernel();
  const sets: { flags: number; start: number; count: number; fds: number[] }[] = [];
  kernel.ioctls.set(uapi.VFIO_DEVICE_GET_IRQ_INFO.request, (bytes) => {
    const view = new DataView((bytes as Uint8Array).buffer);
    view.setUint32(4, flags, true);
    view.setUint32(12, count, true);
    return 0;
  });
  kernel.ioctls.set(uapi.VFIO_DEVICE_SET_IRQS.request, (bytes) => {
    const { argsz, flags, start, count } = uapi.vfio_irq_set.decode(bytes as Uint8Array);
    const data = (bytes as Uint8Array).slice(uapi.vfio_irq_set.size, argsz);
    sets.push({ flags, start, count, fds: [...new Int32Array(data.buffer)] });
    return results.shift() ?? 0;
  });
  return { kernel, sets, lines: new InterruptLines(kernel, 9, kind) };
}

test('vectors that cannot be added later are allocated with the first', () => {
  const { sets, lines } = setUp('msi', 4, uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_NORESIZE);
  const second = new Interrupt(lines, 1);
  const third = new Interrupt(lines, 3);
  second.close();
  third.close();
  expect(sets).toEqual([
    { flags: TRIGGER | EVENTFD, start: 0, count: 4, fds: [-1, 99, -1, -1] },
    { flags: TRIGGER | EVENTFD, start: 3, count: 1, fds: [99] },
    { flags: TRIGGER | EVENTFD, start: 1, count: 1, fds: [-1] },
    { flags: TRIGGER | NONE, start: 0, count: 0, fds: [] },
  ]);
});

test('vectors that can be added are allocated one by one', () => {
  const { sets, lines } = setUp('msix', 2048, uapi.VFIO_IRQ_INFO_EVENTFD);
  new Interrupt(lines, 7);
  new Interrupt(lines, 0);
  expect(sets).toEqual([
    { flags: TRIGGER | EVENTFD, start: 7, count: 1, fds: [99] },
    { flags: TRIGGER | EVENTFD, start: 0, count: 1, fds: [99] },
  ]);
});

test('a system with fewer vectors gives what it has', () => {
  const { sets, lines } = setUp('msi', 8, uapi.VFIO_IRQ_INFO_NORESIZE, [2]);
  new Interrupt(lines, 1);
  expect(sets.map(({ fds }) => fds)).toEqual([
    [-1, 99, -1, -1, -1, -1, -1, -1],
    [-1, 99],
  ]);
});

test('a vector the system cannot give is ENOSPC, and its eventfd is closed', () => {
  const { kernel, lines } = setUp('msi', 8, uapi.VFIO_IRQ_INFO_NORESIZE, [2]);
  expect(() => new Interrupt(lines, 5)).toThrow(
    'VFIO_DEVICE_SET_IRQS: ENOSPC: the system has no msi vector 5',
  );
  expect(kernel.closed).toEqual([99]);
  expect(lines.open.size).toBe(0);
});
