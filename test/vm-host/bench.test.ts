import { FIGURES } from '../../scripts/bench/figures';
import { TrialError } from '../../scripts/bench/result';
import { runFigures } from '../../scripts/bench/run';

/** Ratios of the ring's and the ioctls' work to a C program's, in instructions: nearly those of a quiet machine's time. */
const GOALS: Readonly<Record<string, number>> = { 'vm-faults': 1.25, 'vm-map-unmap': 1.2 };

const IN_VM = FIGURES.filter(({ inVm }) => inVm);

test('figures are measured in one guest, each beside its peers; one that fails says why', () => {
  const leftOut: string[] = [];
  const lunch = { ...IN_VM[0], name: 'lunch', ours: [{ script: 'vm-map-unmap', arguments: ['lunch'] }] };
  const figures = [lunch, ...IN_VM];
  const readings = [
    ...runFigures(figures, {
      runs: 1,
      milliseconds: 1,
      instructions: false,
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

test('faults and mappings take hardly more instructions than in C', () => {
  const leftOut: string[] = [];
  const options = {
    runs: 1,
    milliseconds: 50,
    instructions: true,
    leaveOut: (what: string, why: string) => leftOut.push(`${what}: ${why}`),
  };
  const figures = IN_VM.filter(({ name }) => name in GOALS);
  const readings = [...runFigures(figures, options)];
  expect(readings.map(([{ name }]) => name)).toEqual(figures.map(({ name }) => name));
  for (const [{ name }, outcome] of readings) {
    if (outcome instanceof TrialError) throw outcome;
    const { ours, peer } = outcome;
    console.log(`${name}: ${ours} instructions, in C ${peer['C']}`);
    if (leftOut.length === 0) expect(ours / peer['C']).toBeLessThanOrEqual(GOALS[name]);
  }
  for (const line of leftOut) expect(line).toMatch(/: there is no C compiler/);
}, 300_000);
