import type { Call, Sequence } from '../../scripts/conformance/program';
import { shrink } from '../../scripts/conformance/shrink';

function map(label: number, fields: Extract<Call, { op: 'ioctl' }>['fields']): Call {
  return { label, op: 'ioctl', fd: 0, request: 'IOMMU_IOAS_MAP', fields };
}

const open: Call = { label: 0, op: 'open', path: '/dev/iommu' };

function sequence(...calls: Call[]): Sequence {
  return { name: 'test', calls };
}

/** Shows something if all these labels are there. */
function needs(...labels: number[]) {
  return (candidates: readonly Sequence[]) =>
    Promise.resolve(
      candidates.map(({ calls }) => labels.every((label) => calls.some((call) => call.label === label))),
    );
}

describe('shrink', () => {
  const long = sequence(
    open,
    ...Array.from({ length: 40 }, (_, i) => map(i + 1, { flags: 7, iova: 0x5000 })),
  );

  test.each([[[40]], [[3, 40]], [[0, 17, 18, 40]], [[1, 2, 3, 4, 5, 6, 40]]])(
    'to exactly the calls %j',
    async (labels) => {
      const { calls } = await shrink(long, needs(...labels));
      expect(calls.map(({ label }) => label)).toEqual(labels);
    },
  );

  test('fields go where they are not needed, and become simple', async () => {
    const shows = (candidates: readonly Sequence[]) =>
      Promise.resolve(
        candidates.map(({ calls }) => {
          const last = calls.at(-1);
          return last?.op === 'ioctl' && last.label === 40 && Number(last.fields['iova'] ?? 0) > 5;
        }),
      );
    const { calls } = await shrink(long, shows);
    expect(calls).toEqual([map(40, { iova: 0x1000 })]);
  });

  test('what the last call refers to is tried first', async () => {
    const asked: number[] = [];
    const last: Call = { ...map(40, { ioas_id: { of: 7, field: 'out_ioas_id' } }) };
    const calls = long.calls.with(40, last);
    await shrink({ ...long, calls }, (candidates) => {
      asked.push(candidates[0].calls.length);
      return needs(0, 7, 40)(candidates);
    });
    expect(asked[0]).toBe(3);
  });

  test('a sequence that cannot be shorter stays', async () => {
    const only = sequence(open);
    expect(await shrink(only, () => Promise.reject(new Error('nothing to ask')))).toEqual(only);
  });
});
