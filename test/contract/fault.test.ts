import type { IommuError } from '../../lib';
import { faultingDevice } from './faulting-device';
import { errorOf, fill, open, PAGE } from './support';

const COOKIE = 0xfa_0000_0000_0001n;
const IOVA = 0x200_0000n;

function setUp() {
  const iommu = open();
  const faulty = faultingDevice(iommu, COOKIE);
  const { device } = faulty;
  const queue = iommu.createFaultQueue();
  const space = iommu.createAddressSpace({ faults: queue, pasid: true });
  const buffer = iommu.allocateDma(PAGE);
  fill(buffer.bytes, 0x5a);
  return { iommu, faulty, device, queue, space, buffer };
}

describe('page faults', () => {
  test('are reported with IOASID and cookie; mapping the page and answering lets the access through', async () => {
    const { faulty, device, queue, space, buffer } = setUp();
    device.attach(space);
    expect(queue.drain()).toEqual([]);
    await faulty.access(IOVA);
    const fault = await queue.next();
    expect(fault).toMatchObject({
      ioasid: space.ioasid,
      cookie: COOKIE,
      pasid: undefined,
      address: IOVA,
      last: true,
      answered: false,
    });
    expect(fault.permissions).toMatchObject({ read: true, write: false, execute: false });
    space.map(buffer, { iova: IOVA });
    expect(fault.respond('success')).toBe(true);
    expect(fault.answered).toBe(true);
    expect(await faulty.reached(IOVA, buffer)).toBe(true);
    expect(queue.drain()).toEqual([]);
  });

  test('answered invalid, the access fails', async () => {
    const { faulty, device, queue, space, buffer } = setUp();
    device.attach(space);
    await faulty.access(IOVA, { write: true });
    const fault = await queue.next();
    expect(fault.permissions.write).toBe(true);
    expect(fault.respond('invalid')).toBe(true);
    expect(await faulty.reached(IOVA, buffer)).toBe(false);
    expect(() => fault.respond('success')).toThrow('EEXIST');
  });

  test('with PASIDs, each fault names the space of its slot', async () => {
    const { iommu, faulty, device, queue, space, buffer } = setUp();
    const [one, two] = [1, 2].map(() => iommu.createAddressSpace({ faults: queue, pasid: true }));
    device.attach(space);
    device.attach(one, { pasid: 17 });
    device.attach(two, { pasid: 2 ** 16 - 1 });
    expect(device.attached(17)).toBe(one);
    for (const [pasid, expected] of [
      [2 ** 16 - 1, two],
      [undefined, space],
      [17, one],
    ] as const) {
      await faulty.access(IOVA, pasid === undefined ? {} : { pasid });
      const fault = await queue.next();
      expect(fault).toMatchObject({ ioasid: expected.ioasid, cookie: COOKIE, pasid, address: IOVA });
      const mapping = expected.map(buffer, { iova: IOVA });
      expect(fault.respond('success')).toBe(true);
      expect(await faulty.reached(IOVA, buffer, pasid === undefined ? {} : { pasid })).toBe(true);
      mapping.unmap();
    }
  });

  test('a loop takes them one after another', async () => {
    const { faulty, device, queue, space, buffer } = setUp();
    device.attach(space);
    const seen: bigint[] = [];
    await faulty.access(IOVA);
    for await (const fault of queue) {
      seen.push(fault.address);
      space.map(buffer, { iova: fault.address });
      expect(fault.respond('success')).toBe(true);
      expect(await faulty.reached(fault.address, buffer)).toBe(true);
      if (seen.length === 3) break;
      await faulty.access(fault.address + BigInt(PAGE));
    }
    expect(seen).toEqual([0n, 1n, 2n].map((n) => IOVA + n * BigInt(PAGE)));
  });

  test('an iteration left while it waits swallows no fault; nor does a wait that was given up', async () => {
    const { faulty, device, queue, space, buffer } = setUp();
    device.attach(space);
    const left = queue[Symbol.asyncIterator]();
    const abandoned = left.next();
    await left.return!();
    expect(await abandoned).toEqual({ value: undefined, done: true });
    await expect(queue.next({ timeout: 5 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const controller = new AbortController();
    const aborted = queue.next({ signal: controller.signal });
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
    await faulty.access(IOVA);
    const fault = await queue.next();
    expect(fault.address).toBe(IOVA);
    space.map(buffer, { iova: IOVA });
    expect(fault.respond('success')).toBe(true);
    expect(await faulty.reached(IOVA, buffer)).toBe(true);
  });

  test('after detach, the answer comes too late', async () => {
    const { faulty, device, queue, space } = setUp();
    device.attach(space);
    await faulty.access(IOVA);
    const fault = await queue.next();
    device.detach();
    expect(fault.respond('success')).toBe(false);
  });

  test('after replace, the answer comes too late, and the new space gets the next fault', async () => {
    const { iommu, faulty, device, queue, space, buffer } = setUp();
    const other = iommu.createAddressSpace({ faults: queue, pasid: true });
    device.attach(space);
    await faulty.access(IOVA);
    const fault = await queue.next();
    device.attach(other, { replace: true });
    expect(fault.respond('success')).toBe(false);
    await faulty.access(IOVA);
    const again = await queue.next();
    expect(again.ioasid).toBe(other.ioasid);
    other.map(buffer, { iova: IOVA });
    expect(again.respond('success')).toBe(true);
    expect(await faulty.reached(IOVA, buffer)).toBe(true);
  });

  test('a late answer never answers a later fault, though the kernel gave it the same cookie', async () => {
    const { faulty, device, queue, space, buffer } = setUp();
    device.attach(space);
    await faulty.access(IOVA);
    const early = await queue.next();
    device.detach();
    device.attach(space);
    await faulty.access(IOVA + BigInt(PAGE));
    const late = await queue.next();
    expect(late.raw.cookie).toBe(early.raw.cookie);
    expect(early.respond('invalid')).toBe(false);
    space.map(buffer, { iova: IOVA + BigInt(PAGE) });
    expect(late.respond('success')).toBe(true);
    expect(await faulty.reached(IOVA + BigInt(PAGE), buffer)).toBe(true);
  });

  test('closing the device takes its faults along', async () => {
    const { faulty, device, queue, space } = setUp();
    device.attach(space);
    await faulty.access(IOVA);
    const fault = await queue.next();
    device.close();
    expect(fault.respond('success')).toBe(false);
    expect(queue.drain()).toEqual([]);
    space.close();
    queue.close();
    expect(() => queue.drain()).toThrow('EBADF');
  });

  test('unanswered faults do not keep anything from closing', async () => {
    const { iommu, faulty, device, queue, space } = setUp();
    device.attach(space);
    await faulty.access(IOVA);
    const fault = await queue.next();
    iommu.close();
    expect(fault.respond('success')).toBe(false);
  });
});

describe('PASID attach', () => {
  test('is refused where the kernel would only say EINVAL', () => {
    const { iommu, device, space } = setUp();
    const plain = iommu.createAddressSpace();
    const reason = (action: () => void) => (errorOf(action) as IommuError).message;
    expect(reason(() => device.attach(plain, { pasid: 5 }))).toContain(
      'EINVAL: address space 2 cannot be used',
    );
    device.attach(plain);
    expect(reason(() => device.attach(space, { pasid: 5 }))).toContain('which excludes PASIDs');
    device.detach();
    device.attach(space, { pasid: 5 });
    expect(reason(() => device.attach(plain))).toContain('PASID 5 of');
    expect(reason(() => device.attach(plain, { pasid: 5 }))).toContain(
      'with PASID 5 is attached to address space 1',
    );
    device.attach(space, { pasid: 5 });
    expect(space.attachments).toHaveLength(1);
    device.attach(space);
    device.detach({ pasid: 5 });
    device.detach({ pasid: 5 });
    expect(device.attached(5)).toBeUndefined();
    expect(device.attached()).toBe(space);
  });

  test('replace moves one PASID and leaves the others', () => {
    const { iommu, device, space } = setUp();
    const other = iommu.createAddressSpace({ pasid: true });
    device.attach(space, { pasid: 5 });
    device.attach(space, { pasid: 6 });
    device.attach(other, { pasid: 5, replace: true });
    expect(device.attached(5)).toBe(other);
    expect(device.attached(6)).toBe(space);
    expect(space.attachments.map(({ pasid }) => pasid)).toEqual([6]);
    space.close();
    expect(device.attached(6)).toBeUndefined();
    expect(device.attached(5)).toBe(other);
  });
});
