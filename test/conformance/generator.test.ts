import { iommufdIoctls, vfioIoctls } from '../../lib/uapi';
import { Generator, flavours } from '../../scripts/conformance/generate/flavours';
import { isPointer } from '../../scripts/conformance/generate/hostile';
import { layouts } from '../../scripts/conformance/layouts';
import { nameOf, type Call, type Sequence } from '../../scripts/conformance/program';
import { suite } from '../../scripts/conformance/suite';

const SEED = Math.floor(Math.random() * 2 ** 32);

function sequences(
  count: number,
  options: { seed?: number; excluded?: string[]; only?: string[] } = {},
): Sequence[] {
  const { seed = SEED, excluded = [], only = [] } = options;
  const generator = new Generator({ seed, excluded, only });
  return Array.from({ length: count }, (_, i) => generator.sequence(i));
}

describe(`generator, seed ${SEED}`, () => {
  test('one seed gives one list of sequences, in any order', () => {
    const forwards = sequences(200);
    const generator = new Generator({ seed: SEED, excluded: [], only: [] });
    const backwards = forwards.map((_, i) => generator.sequence(199 - i)).reverse();
    expect(backwards).toEqual(forwards);
  });

  test('another seed gives others', () => {
    const texts = (seed: number) => sequences(20, { seed }).map(({ calls }) => JSON.stringify(calls));
    expect(texts(SEED)).not.toEqual(texts(SEED ^ 1));
  });

  test('sequences survive the way to the guest', () => {
    const made = sequences(200);
    expect(JSON.parse(JSON.stringify(made))).toEqual(made);
  });

  test('every ioctl there is a row for is called', () => {
    const called = new Set(sequences(6000, { seed: 7 }).flatMap(({ calls }) => calls.map(nameOf)));
    for (const { name } of [...iommufdIoctls, ...vfioIoctls]) expect(called).toContain(name);
    expect(called).toContain('IOMMU_TEST_CMD');
  });

  test('what a kernel lacks is left out, and flavours that need it', () => {
    const made = sequences(500, { excluded: ['IOMMU_TEST_CMD', 'IOMMU_OPTION'] });
    const called = new Set(made.flatMap(({ calls }) => calls.map(nameOf)));
    expect(called).not.toContain('IOMMU_TEST_CMD');
    expect(called).not.toContain('IOMMU_OPTION');
    expect(made.some(({ name }) => name.startsWith('mock'))).toBe(false);
  });

  test.each(flavours.map(({ name }) => name))('flavour %s can be had alone', (name) => {
    for (const sequence of sequences(50, { only: [name] }))
      expect(sequence.name).toMatch(new RegExp(`^${name} `));
  });

  test('references are to earlier calls, fields are those of the struct', () => {
    for (const { calls } of [...sequences(500), ...suite([])]) {
      const seen = new Set<number>();
      for (const call of calls) {
        for (const label of references(call)) expect(seen).toContain(label);
        if (call.op === 'ioctl' && typeof call.request === 'string')
          for (const path of Object.keys(call.fields))
            expect(layouts.get(call.request)?.byPath.has(path)).toBe(true);
        seen.add(call.label);
      }
    }
  });

  test('no literal address may be one of the running program', () => {
    const literals = sequences(2000)
      .flatMap(({ calls }) => calls)
      .flatMap((call) => (call.op === 'ioctl' ? Object.entries(call.fields) : []))
      .filter(([path, value]) => typeof value !== 'object' && isPointer(path))
      .map(([, value]) => Number(value));
    expect(literals.length).toBeGreaterThan(0);
    expect([0, 1, 0xfff, 0x1000, 0x8000_0000_0000]).toEqual(expect.arrayContaining([...new Set(literals)]));
  });
});

function references(call: Call): number[] {
  const text = JSON.stringify(call);
  // Larger ones are hostile values of a field that has this name.
  return [...text.matchAll(/"(?:of|fd|mapping)":(\d+)/g)]
    .map(([, label]) => Number(label))
    .filter((label) => label < 1000);
}
