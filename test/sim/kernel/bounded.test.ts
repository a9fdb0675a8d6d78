/** No input keeps the machine busy for ever, and what calls leave behind does not add up. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as uapi from '../../../lib/uapi';
import { simulatedPeer } from '../../../scripts/conformance/peer';
import { Bench } from './bench';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes that compiled code and caches may come to in thousands of sequences: a third of a kilobyte for each. */
const MOST_LEFT = 2 ** 20;

/** Bytes in use, the machine's memory included. */
function used(): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

test('ALLOW_IOVAS takes hundreds of thousands of ranges, in any order', () => {
  const bench = new Bench();
  const count = 300_000;
  const memory = bench.memory(count * uapi.iommu_iova_range.size);
  const view = new DataView(memory.bytes.buffer);
  for (let i = 0; i < count; i++) {
    // An odd factor: each place once, far from the one before.
    const place = (i * 7919) % count;
    uapi.iommu_iova_range.write(view, 16 * i, { start: place * 0x2000, last: place * 0x2000 + 0xfff });
  }
  const ioas_id = bench.ioas();
  const allowed = { ioas_id, num_iovas: count, allowed_iovas: memory.address };
  expect(bench.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, allowed)).toBe(0);
  uapi.iommu_iova_range.write(view, 16 * (count - 1), { start: 0x2800, last: 0x2fff });
  expect(bench.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, allowed)).toBe('EINVAL');
  expect(bench.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, { ...allowed, num_iovas: 2 ** 32 - 1 })).toBe('EINVAL');
});

test('thousands of random sequences leave no memory behind', () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const generator = { seed, excluded: [], only: [] };
  const peer = simulatedPeer();
  const run = (first: number, count: number) => peer.hashNow({ generator, first, count });
  // Until everything that is made once has been made.
  run(0, 3000);
  const before = used();
  run(3000, 3000);
  const left = used() - before;
  expect({ seed, left: left > MOST_LEFT ? left : 'little' }).toEqual({ seed, left: 'little' });
});
