import { FIGURES } from '../../scripts/bench/figures';
import { TrialError } from '../../scripts/bench/result';
import { runFigures } from '../../scripts/bench/run';

const IN_VM = FIGURES.filter(({ inVm }) => inVm);

test('figures are measured in one guest, each beside its peers; one that fails says why', () => {
  const leftOut: string[] = [];
  const lunch = { ...IN_VM[0], name: 'lunch', ours: [{ script: 'vm-map-unmap', arguments: ['lunch'] }] };
  const figures = [lunch, ...IN_VM];
  const readings = [
    ...runFigures(figures, {
      runs: 1,
      milliseconds: 1,
      leaveOut: (what, why) => leftOut.push(`${what}: ${why}`),
    }),
  ];
  expect(readings.map(([figure]) => figure)).toEqual(figures);
  const [[, failure], ...measured] = readings;
  expect(failure).toBeInstanceOf(TrialError);
  expect((failure as TrialError).message).toMatch(/^in the guest: [^]*there is no way lunch/);
  for (const [figure, outcome] of measured) {
    if (outcome instanceof TrialError) throw outcome;
    expect(outcome.ours).toBeGreaterThan(0);
    expect(Object.keys(outcome.ratio)).toEqual(leftOut.length > 0 ? [] : Object.keys(figure.peers));
  }
  for (const line of leftOut) expect(line).toMatch(/: there is no C compiler/);
}, 300_000);
