import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { UserMemory } from '../../../lib/sim/kernel/user-memory';
import { PhysicalMemory } from '../../../lib/sim/memory';

const PAGE = 4096;

function collectGarbage(): void {
  setFlagsFromString('--expose_gc');
  (runInNewContext('gc') as () => void)();
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

describe('UserMemory', () => {
  let physical: PhysicalMemory;
  let memory: UserMemory;
  beforeEach(() => {
    physical = new PhysicalMemory(2 ** 20);
    memory = new UserMemory(physical);
  });

  test('a buffer has one address, and its views lie in it', () => {
    const buffer = new ArrayBuffer(10_000);
    const address = memory.addressOf(new Uint8Array(buffer));
    expect(address % PAGE).toBe(0);
    expect(memory.addressOf(new Uint16Array(buffer, 6))).toBe(address + 6);
    expect(memory.addressOf(new DataView(buffer, 9_999))).toBe(address + 9_999);
    const other = memory.addressOf(new Uint8Array(10));
    expect(other).toBeGreaterThanOrEqual(address + 12_288 + PAGE);
  });

  test('huge memory is aligned and rounded', () => {
    const { buffer, address } = memory.allocate(5, true);
    expect(address % 2 ** 21).toBe(0);
    expect(buffer.byteLength).toBe(2 ** 21);
    expect(memory.allocate(5, false).buffer.byteLength).toBe(PAGE);
  });

  test('copies in and out stop where nothing is mapped', () => {
    const { buffer, address } = memory.allocate(PAGE, false);
    const bytes = new Uint8Array(buffer);
    expect(memory.write(BigInt(address), Uint8Array.of(1, 2, 3))).toBe(true);
    expect([...bytes.subarray(0, 4)]).toEqual([1, 2, 3, 0]);
    expect(memory.write(BigInt(address + PAGE - 2), Uint8Array.of(7, 8, 9))).toBe(false);
    expect([...bytes.subarray(-2)]).toEqual([7, 8]);
    expect(memory.clear(BigInt(address + PAGE - 1), 2)).toBe(false);
    expect(bytes[PAGE - 1]).toBe(0);
    expect(memory.read(BigInt(address), 3)).toEqual(Uint8Array.of(1, 2, 3));
    for (const bad of [0n, BigInt(address) - 1n, BigInt(address + PAGE), 1n << 47n, 2n ** 64n - 1n]) {
      expect(memory.read(bad, 1)).toBeUndefined();
      expect(memory.write(bad, Uint8Array.of(1))).toBe(false);
      expect(memory.write(bad, new Uint8Array(0))).toBe(true);
      expect(memory.pin(bad, 1n)).toBeUndefined();
    }
    expect(memory.rest(address + 5)).toHaveLength(PAGE - 5);
    expect(memory.rest(NaN)).toBeUndefined();
  });

  test('a pinned page is the same memory, and stays where it is', () => {
    const { buffer, address } = memory.allocate(3 * PAGE, false);
    const first = memory.pin(BigInt(address + PAGE + 5), 10n)!;
    const second = memory.pin(BigInt(address), BigInt(3 * PAGE))!;
    expect(first.physical - second.physical).toBe(PAGE);
    physical.copyIn(first.physical, Uint8Array.of(42), 0, 1);
    expect(new Uint8Array(buffer)[PAGE]).toBe(42);
    first.unpin();
    expect(physical.has(second.physical, 3 * PAGE)).toBe(true);
    second.unpin();
    expect(physical.has(second.physical, 1)).toBe(false);
    expect(memory.pin(BigInt(address), BigInt(3 * PAGE + 1))).toBeUndefined();
  });

  test('after unmap the program sees nothing, and a device that has the pages still does', () => {
    const allocation = memory.allocate(PAGE, false);
    const { buffer, address } = allocation;
    const view = new Uint8Array(buffer).fill(5);
    const pin = memory.pin(BigInt(address), BigInt(PAGE))!;
    memory.unmap(allocation);
    expect(view).toHaveLength(0);
    expect(memory.read(BigInt(address), 1)).toBeUndefined();
    expect(memory.pin(BigInt(address), 1n)).toBeUndefined();
    const seen = new Uint8Array(2);
    expect(physical.copyOut(pin.physical, seen, 0, 2)).toBe(true);
    expect([...seen]).toEqual([5, 5]);
    physical.copyIn(pin.physical, Uint8Array.of(6), 0, 1);
    physical.copyOut(pin.physical, seen, 0, 2);
    expect([...seen]).toEqual([6, 5]);
    pin.unpin();
    expect(physical.has(pin.physical, 1)).toBe(false);
    memory.unmap(allocation);
  });

  test('an address is not used twice', () => {
    const allocation = memory.allocate(PAGE, false);
    const { address } = allocation;
    memory.unmap(allocation);
    expect(memory.allocate(PAGE, false).address).toBeGreaterThan(address);
  });

  test('collecting a buffer takes its own area away, and no other', async () => {
    const neighbours: { buffer: ArrayBuffer; address: number }[] = [];
    for (let i = 0; i < 40; i++) {
      neighbours.push(memory.allocate(PAGE, false));
      // One is unmapped and then collected, one is only collected.
      memory.unmap(memory.allocate(PAGE, false));
      memory.addressOf(new Uint8Array(new ArrayBuffer(PAGE)));
    }
    for (let round = 0; round < 4; round++) {
      collectGarbage();
      await turn();
    }
    for (const { buffer, address } of neighbours) {
      new Uint8Array(buffer)[0] = 9;
      expect(memory.read(BigInt(address), 1)).toEqual(Uint8Array.of(9));
    }
  });

  test('a buffer that a device can reach is not collected', async () => {
    const pinned = (() => {
      const view = new Uint8Array(new ArrayBuffer(PAGE)).fill(3);
      const address = BigInt(memory.addressOf(view));
      return { address, pin: memory.pin(address, BigInt(PAGE))! };
    })();
    const forgotten = (() => BigInt(memory.addressOf(new Uint8Array(new ArrayBuffer(PAGE)))))();
    for (let round = 0; round < 4; round++) {
      collectGarbage();
      await turn();
    }
    expect(memory.read(forgotten, 1)).toBeUndefined();
    expect(memory.read(pinned.address, 1)).toEqual(Uint8Array.of(3));
    pinned.pin.unpin();
  });
});
