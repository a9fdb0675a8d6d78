/** Features and log pages whose effect is elsewhere: the write cache, thresholds, the scope of a log. NVM Express 1.4, 5.14, 5.21.1. */
import { MemoryStorage } from '../../../lib/sim';
import { Bench, pattern, transfer } from './bench';

/** Knows whether what was written is on the medium. */
class CachedStorage extends MemoryStorage {
  dirty = false;
  broken = false;

  override write(offset: number, bytes: Uint8Array): void {
    this.dirty = true;
    super.write(offset, bytes);
  }

  override zero(offset: number, length: number): void {
    this.dirty = true;
    super.zero(offset, length);
  }

  override flush(): void {
    if (this.broken) throw new Error('broken');
    this.dirty = false;
  }
}

function setUp() {
  const storage = new CachedStorage(1 << 20);
  const bench = new Bench({ namespaces: [{ storage }] });
  const ring = bench.createQueues(1);
  const data = bench.pool.allocate(4096);
  const setFeature = (id: number, value: number) =>
    bench.outcome(bench.admin, { opcode: 0x09, dwords: [id, value] });
  return { storage, bench, ring, data, setFeature };
}

const WRITE_CACHE = 0x06;
const DEALLOCATION = { opcode: 0x09, namespace: 1, dwords: [0, 1 << 2] };

describe('the volatile write cache (5.21.1.6)', () => {
  test.each([
    ['enabled: writes are not on the medium before a flush', 1],
    ['disabled: what completes is on the medium', 0],
  ])('%s', (_name, enabled) => {
    const { storage, bench, ring, data, setFeature } = setUp();
    expect(setFeature(WRITE_CACHE, enabled)).toBe(0);
    data.bytes.set(pattern(512));
    const zeroes = { opcode: 0x08, namespace: 1, dwords: [0, 0, 7] };
    for (const command of [
      transfer(1, 0, 1, data.iova),
      zeroes,
      { ...DEALLOCATION, prp1: bench.pool.allocate(4096).iova },
    ]) {
      storage.dirty = false;
      expect([command.opcode, bench.outcome(ring, command), storage.dirty]).toEqual([
        command.opcode,
        0,
        enabled === 1,
      ]);
    }
  });

  test('a write whose data does not reach the medium fails', () => {
    const { storage, bench, ring, data, setFeature } = setUp();
    setFeature(WRITE_CACHE, 0);
    storage.broken = true;
    expect(bench.outcome(ring, transfer(1, 0, 1, data.iova))).toBe(0x280);
  });

  test('what was in it when it is disabled is written; it is enabled by a reset', () => {
    const { storage, bench, ring, data, setFeature } = setUp();
    expect([bench.outcome(ring, transfer(1, 0, 1, data.iova)), storage.dirty]).toEqual([0, true]);
    storage.broken = true;
    expect(setFeature(WRITE_CACHE, 0)).toBe(0x280);
    expect(bench.run(bench.admin, { opcode: 0x0a, dwords: [WRITE_CACHE] }).result).toBe(1);
    storage.broken = false;
    expect([setFeature(WRITE_CACHE, 0), storage.dirty]).toEqual([0, false]);
    bench.disable();
    bench.enable();
    expect(bench.run(bench.admin, { opcode: 0x0a, dwords: [WRITE_CACHE] }).result).toBe(1);
  });

  test.each([0x01, 0x08])('Force Unit Access, opcode %i: on the medium although it is enabled', (opcode) => {
    const { storage, bench, ring, data } = setUp();
    const command = { opcode, namespace: 1, prp1: data.iova, dwords: [0, 0, 1 << 30] };
    expect([bench.outcome(ring, command), storage.dirty]).toEqual([0, false]);
  });
});

test('errors of unwritten blocks cannot be enabled: no namespace has them (5.21.1.5, NSFEAT bit 2)', () => {
  const { setFeature } = setUp();
  expect([setFeature(0x05, 1 << 16), setFeature(0x05, 0xffff)]).toEqual([0x002, 0]);
});

test('a threshold of all temperature sensors is that of the composite temperature (5.21.1.4)', () => {
  const { bench, setFeature } = setUp();
  const get = (details: number) => bench.run(bench.admin, { opcode: 0x0a, dwords: [0x04, details] });
  const [all, under] = [15 << 16, 1 << 20];
  expect([setFeature(0x04, all | 333), setFeature(0x04, all | under | 280)]).toEqual([0, 0]);
  expect([get(0).result, get(under).result]).toEqual([333, 280]);
  // Reserved in Get Features; and there is no sensor 1.
  expect([get(all).status, setFeature(0x04, (1 << 16) | 333)]).toEqual([0x002, 0x002]);
});

test.each([
  [0, 0],
  [0xffff_ffff, 0],
  [1, 0x002],
  [99, 0x00b],
])('the SMART log of namespace %i: status %i (5.14.1.2, LPA bit 0)', (namespace, status) => {
  const { bench, data } = setUp();
  const command = { opcode: 0x02, namespace, prp1: data.iova, dwords: [(127 << 16) | 2] };
  expect(bench.outcome(bench.admin, command)).toBe(status);
});
