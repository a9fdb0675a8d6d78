/** DMA makes no garbage: requests that hit or miss in the IOTLB, of few bytes, leave nothing for the collector. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const REQUESTS = 200_000;
/** The engine has work of its own; but the smallest object that there is, one for each request, would be three times that. */
const FEW = REQUESTS * 4;

/**
 * Nothing is collected while it is measured: the heap grows by what was allocated. Where the engine has collected all the
 * same, as it may for memory outside the heap, the measurement says nothing, and there is another.
 */
function measure(scenario: string): ReturnType<typeof measureOnce> {
  let measured = measureOnce(scenario);
  for (let again = 0; again < 4 && measured.collections > 0; again++) measured = measureOnce(scenario);
  return measured;
}

function measureOnce(scenario: string): { bytes: number; collections: number; refused: number } {
  const { IOMMUFD_STRICT: _, NODE_OPTIONS: __, ...env } = process.env;
  const program = join(__dirname, 'dma-garbage.js');
  const flags = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64'];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [...flags, program, scenario, String(REQUESTS)],
    {
      encoding: 'utf8',
      env,
    },
  );
  expect([status, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as ReturnType<typeof measureOnce>;
}

test.each([
  'first stage, hits',
  'first stage, misses',
  'first stage, large pages, misses',
  'with PASID, misses',
  'second stage, hits',
  'second stage, misses',
  'no IOMMU',
])('%s: no garbage', (scenario) => {
  const { bytes, collections, refused } = measure(scenario);
  expect([refused, collections]).toEqual([0, 0]);
  expect(bytes).toBeLessThan(FEW);
});

test('an object for each request would be seen', () => {
  const { bytes, collections } = measure('litter');
  expect(collections).toBe(0);
  expect(bytes).toBeGreaterThan(REQUESTS * 12);
});
