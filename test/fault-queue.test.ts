import { AttachTable, NO_PASID } from '../lib/attach-data';
import type { Context } from '../lib/context';
import { HotCalls } from '../lib/hot-calls';
import { FaultQueue } from '../lib/fault-queue';
import type { IoAddressSpace } from '../lib/io-address-space';
import {
  errno,
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE as LAST,
  IOMMU_PGFAULT_FLAGS_PASID_VALID as PASID_VALID,
} from '../lib/uapi';
import { ScriptedKernel } from './scripted-kernel';

type RecordInput = Parameters<typeof iommu_hwpt_pgfault.encode>[0];

/** One read's worth of records. */
function records(...list: RecordInput[]): Uint8Array {
  const bytes = new Uint8Array(list.length * iommu_hwpt_pgfault.size);
  list.forEach((values, i) => bytes.set(iommu_hwpt_pgfault.encode(values), i * iommu_hwpt_pgfault.size));
  return bytes;
}

function setUp(limit?: number) {
  const kernel = new ScriptedKernel();
  const order: string[] = [];
  kernel.ioctls.set(IOMMU_FAULT_QUEUE_ALLOC.request, (bytes) => {
    const view = new DataView((bytes as Uint8Array).buffer);
    view.setUint32(8, 4, true);
    view.setUint32(12, 40, true);
    return 0;
  });
  kernel.ioctls.set(IOMMU_DESTROY.request, () => {
    order.push('destroy');
    return 0;
  });
  const context: Context = {
    kernel,
    fd: 3,
    hot: new HotCalls(kernel, 3),
    mapsFiles: true,
    attachData: new AttachTable(),
    devices: new Set(),
    spaces: new Set(),
    ioasids: new Set(),
    queues: new Set(),
    buffers: new Set(),
    machines: new Set(),
    requireOpen: () => {},
  };
  const device = { rid: 2, defaultPasid: NO_PASID, cookie: 0xc0ffeen };
  context.attachData.add(device, undefined, 1);
  context.attachData.add(device, 5, 6);
  const queue = new FaultQueue(context, { limit });
  const responses = () => kernel.written.map((bytes) => iommu_hwpt_page_response.decode(bytes));
  return { kernel, context, queue, responses, order };
}

describe('fault queue', () => {
  test('a fault carries device cookie, IOASID, PASID, address and permissions', () => {
    const { kernel, queue } = setUp();
    kernel.reads.push(
      records(
        { dev_id: 2, flags: LAST, perm: 0b0001, addr: 0x1234_5000n, grpid: 3, cookie: 1 },
        {
          dev_id: 2,
          flags: LAST | PASID_VALID,
          pasid: 5,
          perm: 0b1110,
          addr: 0xffff_ffff_ffff_f000n,
          cookie: 2,
        },
      ),
    );
    const [plain, withPasid] = queue.drain();
    expect(plain).toMatchObject({ ioasid: 1, cookie: 0xc0ffeen, pasid: undefined, address: 0x1234_5000n });
    expect(plain).toMatchObject({ group: 3, last: true, length: 0, answered: false });
    expect(plain.permissions).toEqual({ read: true, write: false, execute: false, privileged: false });
    expect(withPasid).toMatchObject({ ioasid: 6, pasid: 5, address: 0xffff_ffff_ffff_f000n });
    expect(withPasid.permissions).toEqual({ read: false, write: true, execute: true, privileged: true });
    expect(queue.drain()).toEqual([]);
  });

  test('a group gets one response, when its last fault has one; invalid if any was', () => {
    const { kernel, queue, responses } = setUp();
    const part = { dev_id: 2, grpid: 9, cookie: 7 };
    kernel.reads.push(records({ ...part }, { ...part }, { ...part, flags: LAST }));
    const faults = queue.drain();
    expect(faults).toHaveLength(3);
    expect(faults[2].respond('success')).toBe(true);
    expect(faults[0].respond('invalid')).toBe(true);
    expect(responses()).toEqual([]);
    expect(faults[1].respond('success')).toBe(true);
    expect(responses()).toEqual([{ cookie: 7, code: 1 }]);
  });

  test('groups beside each other in one read are answered apart', () => {
    const { kernel, queue, responses } = setUp();
    kernel.reads.push(records({ dev_id: 2, cookie: 1 }, { dev_id: 2, cookie: 2 }, { dev_id: 2, cookie: 2 }));
    const [one, two, three] = queue.drain();
    one.respond('success');
    expect(responses()).toEqual([{ cookie: 1, code: 0 }]);
    two.respond('success');
    three.respond('success');
    expect(responses()).toEqual([
      { cookie: 1, code: 0 },
      { cookie: 2, code: 0 },
    ]);
  });

  test('the kernel answered itself: respond says false', () => {
    const { kernel, queue } = setUp();
    kernel.reads.push(records({ dev_id: 2, cookie: 1, flags: LAST }));
    const [fault] = queue.drain();
    kernel.writeResults.push(-errno.EINVAL);
    expect(fault.respond('success')).toBe(false);
  });

  test('a stale response never answers the fault that has its cookie now', () => {
    const { kernel, queue, responses } = setUp();
    kernel.reads.push(records({ dev_id: 2, cookie: 1, addr: 0x1000n }));
    const [old] = queue.drain();
    kernel.reads.push(records({ dev_id: 2, cookie: 1, addr: 0x2000n }));
    const [now] = queue.drain();
    expect(old.respond('success')).toBe(false);
    expect(responses()).toEqual([]);
    expect(now.respond('invalid')).toBe(true);
    expect(responses()).toEqual([{ cookie: 1, code: 1 }]);
  });

  test('a second response throws, and is not sent', () => {
    const { kernel, queue, responses } = setUp();
    kernel.reads.push(records({ dev_id: 2, cookie: 1 }));
    const [fault] = queue.drain();
    fault.respond('success');
    expect(() => fault.respond('invalid')).toThrow(
      'write: EEXIST: the fault at 0x0 has its response already',
    );
    expect(responses()).toHaveLength(1);
    expect(() => fault.respond('perhaps' as 'invalid')).toThrow(TypeError);
  });

  test('a fault of nobody is answered invalid and not delivered', () => {
    const { kernel, queue, responses } = setUp();
    kernel.reads.push(records({ dev_id: 77, cookie: 4 }, { dev_id: 2, cookie: 5 }));
    expect(queue.drain().map((fault) => fault.raw.cookie)).toEqual([5]);
    expect(responses()).toEqual([{ cookie: 4, code: 1 }]);
  });

  test('EINVAL means the buffer is too small: it grows until the group fits', () => {
    const { kernel, queue } = setUp();
    const many = Array.from({ length: 300 }, (_, i) => ({ dev_id: 2, cookie: 1, addr: BigInt(i) * 4096n }));
    kernel.reads.push(records(...many));
    const faults = queue.drain();
    expect(faults.map((fault) => fault.address)).toEqual(many.map(({ addr }) => addr));
  });

  test('a group larger than the limit comes when nothing else waits', () => {
    const { kernel, queue } = setUp(2);
    const pages = (count: number, cookie: number) =>
      Array.from({ length: count }, () => ({ dev_id: 2, cookie }));
    kernel.reads.push(records(...pages(1, 1)), records(...pages(70, 2)), records(...pages(1, 3)));
    const [fault] = queue.drain();
    expect([queue.drain(), queue.pending.length]).toEqual([[], 1]);
    fault.respond('success');
    const large = queue.drain();
    expect(large).toHaveLength(70);
    expect(queue.drain()).toEqual([]);
    for (const one of large) one.respond('success');
    expect(queue.drain()).toHaveLength(1);
  });

  test('while there is no room, nobody watches the descriptor, which stays ready', async () => {
    const { kernel, queue } = setUp(2);
    kernel.reads.push(records({ dev_id: 2, cookie: 1 }));
    const [first] = queue.drain();
    const waiting = queue.next();
    await Promise.resolve();
    expect(kernel.watches.size).toBe(1);
    kernel.reads.push(records({ dev_id: 2, cookie: 2 }, { dev_id: 2, cookie: 2 }));
    for (const ready of kernel.watches) ready(1);
    expect(kernel.watches.size).toBe(0);
    const later = queue.next();
    await Promise.resolve();
    expect(kernel.watches.size).toBe(0);
    first.respond('success');
    const [second, third] = [await waiting, await later];
    expect([second, third].map(({ raw }) => raw.cookie)).toEqual([2, 2]);
    const last = queue.next();
    await Promise.resolve();
    expect(kernel.watches.size).toBe(0);
    for (const fault of [second, third]) fault.respond('success');
    expect(kernel.watches.size).toBe(1);
    queue.close();
    await expect(last).rejects.toMatchObject({ code: 'EBADF' });
  });

  test('an error from read(2) is an IommuError', () => {
    const { kernel, queue } = setUp();
    kernel.reads.push(-errno.EFAULT);
    expect(() => queue.drain()).toThrow('read: EFAULT: bad address');
  });

  test('iteration waits, wakes with the descriptor, and watches only while it waits', async () => {
    const { kernel, queue } = setUp();
    const iterator = queue[Symbol.asyncIterator]();
    const first = iterator.next();
    await Promise.resolve();
    expect(kernel.watches.size).toBe(1);
    kernel.reads.push(
      records({ dev_id: 2, cookie: 1, addr: 0x1000n }, { dev_id: 2, cookie: 2, addr: 0x2000n }),
    );
    for (const ready of kernel.watches) ready(1);
    expect(await first).toMatchObject({ done: false, value: { address: 0x1000n } });
    // Who was served may wait again: the watch stays until the event loop has turned.
    for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate);
    expect(kernel.watches.size).toBe(0);
    expect(await iterator.next()).toMatchObject({ value: { address: 0x2000n } });
    const waiting = iterator.next();
    await Promise.resolve();
    queue.close();
    expect(await waiting).toEqual({ value: undefined, done: true });
    expect(kernel.watches.size).toBe(0);
    expect(await iterator.next()).toEqual({ value: undefined, done: true });
  });

  test('a read error reaches whoever waits', async () => {
    const { kernel, queue } = setUp();
    const next = queue[Symbol.asyncIterator]().next();
    await Promise.resolve();
    kernel.reads.push(-errno.EIO);
    for (const ready of kernel.watches) ready(1);
    await expect(next).rejects.toMatchObject({ code: 'EIO', syscall: 'read' });
    expect(kernel.watches.size).toBe(0);
  });

  test('an iteration left while it waits swallows no fault, and stops the watch', async () => {
    const { kernel, queue } = setUp();
    const left = queue[Symbol.asyncIterator]();
    const abandoned = left.next();
    await left.return!();
    expect(await abandoned).toEqual({ value: undefined, done: true });
    expect(kernel.watches.size).toBe(0);
    const waiting = queue.next();
    await Promise.resolve();
    kernel.reads.push(records({ dev_id: 2, cookie: 1, addr: 0x1000n }));
    for (const ready of kernel.watches) ready(1);
    expect(await waiting).toMatchObject({ address: 0x1000n });
    for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate);
    expect(kernel.watches.size).toBe(0);
  });

  test('next: with a limit, with a signal, and on a queue that is closed', async () => {
    const { kernel, queue } = setUp();
    await expect(queue.next({ timeout: 1 })).rejects.toMatchObject({ code: 'ETIMEDOUT', syscall: 'poll' });
    await expect(queue.next({ signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
    expect(kernel.watches.size).toBe(0);
    kernel.reads.push(records({ dev_id: 2, cookie: 1, addr: 0x1000n }));
    expect(await queue.next({ timeout: 0 })).toMatchObject({ address: 0x1000n });
    const closed = { code: 'EBADF', syscall: 'read', reason: 'fault queue 4 is closed' };
    const waiting = queue.next();
    queue.close();
    await expect(waiting).rejects.toMatchObject(closed);
    await expect(queue.next()).rejects.toMatchObject(closed);
  });

  test('close: the file before the object, and respond is false from then on', () => {
    const { kernel, context, queue, responses, order } = setUp();
    kernel.reads.push(records({ dev_id: 2, cookie: 1 }));
    const [fault] = queue.drain();
    queue.close();
    expect(kernel.closed).toEqual([40]);
    expect(order).toEqual(['destroy']);
    expect(context.queues.size).toBe(0);
    expect(fault.respond('success')).toBe(false);
    expect(responses()).toEqual([]);
    queue.close();
    expect(kernel.closed).toEqual([40]);
    expect(() => queue.drain()).toThrow('read: EBADF: fault queue 4 is closed');
  });

  test('close is refused while an address space reports here', () => {
    const { kernel, queue } = setUp();
    const space = { label: 'address space 12' } as IoAddressSpace;
    queue.users.add(space);
    expect(() => queue.close()).toThrow('IOMMU_DESTROY: EBUSY: fault queue 4 is used by address space 12');
    expect(queue.closed).toBe(false);
    expect(kernel.closed).toEqual([]);
    queue.users.delete(space);
    queue.close();
    expect(queue.closed).toBe(true);
  });
});
