import { FIGURES } from '../../scripts/bench/figures';
import { runFigure } from '../../scripts/bench/run';

const figure = FIGURES.find(({ name }) => name === 'vm-map-unmap')!;
const run = (ours = figure.ours) =>
  runFigure(
    { ...figure, ours },
    { runs: 2, milliseconds: 1, leaveOut: (what, why) => leftOut.push(`${what}: ${why}`) },
  );
let leftOut: string[];

beforeEach(() => {
  leftOut = [];
});

test('a figure is measured in a guest, beside its peer', () => {
  const outcome = run();
  const peers = leftOut.length > 0 ? [] : ['C'];
  expect(Object.keys(outcome!.ratio)).toEqual(peers);
  expect(outcome!.ours).toBeGreaterThan(0);
  for (const line of leftOut) expect(line).toMatch(/^vm-map-unmap, C: there is no C compiler/);
}, 300_000);

test('a trial that fails there says why', () => {
  expect(() => run([{ script: 'vm-map-unmap', arguments: ['lunch'] }])).toThrow(
    /^in the guest: [^]*there is no way lunch/,
  );
}, 300_000);
