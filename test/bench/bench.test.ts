import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadAddon } from '../../lib/linux/addon';
import { FIGURES, type Figure } from '../../scripts/bench/figures';
import { parseOptions, UsageError } from '../../scripts/bench/options';
import { median, runFigure, type Outcome } from '../../scripts/bench/run';
import { takeTurns } from '../../scripts/bench/sides';
import { TABLE_HEAD, tableLines } from '../../scripts/bench/table';

const MAIN = join(__dirname, '../../scripts/bench/main.js');
const NAMES = FIGURES.map(({ name }) => name);
const QUICK = ['--runs', '1', '--milliseconds', '1'];

const hasCompiler = spawnSync(process.env['CC'] ?? 'cc', ['--version']).status === 0;
let cache: string;
const environment = { ...process.env };

beforeAll(() => {
  cache = mkdtempSync(join(tmpdir(), 'iommufd-bench-'));
});
beforeEach(() => {
  process.env = { ...environment, XDG_CACHE_HOME: cache };
});
afterAll(() => {
  process.env = environment;
  rmSync(cache, { recursive: true });
});

function bench(args: string[], env: NodeJS.ProcessEnv = {}) {
  return spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
}

/** A bench that must succeed: the one figure of its JSON. */
function figure(name: string, env: NodeJS.ProcessEnv = {}): { outcome: Outcome; stderr: string } {
  const { status, stdout, stderr } = bench(['--json', '--only', name, ...QUICK], env);
  if (status !== 0) throw new Error(`ended with status ${status}: ${stderr}`);
  const found = JSON.parse(stdout) as Record<string, Outcome>;
  expect(Object.keys(found)).toEqual([name]);
  return { outcome: found[name], stderr };
}

describe('npm run bench', () => {
  test('prints a figure beside its peers as JSON', () => {
    const { outcome, stderr } = figure('translate-hit');
    expect(Object.keys(outcome)).toEqual(['ours', 'peer', 'ratio', 'unit']);
    expect(outcome.unit).toBe('ns');
    expect(outcome.ours).toBeGreaterThan(0);
    const peers = hasCompiler ? ['C', 'naive JS'] : ['naive JS'];
    expect(Object.keys(outcome.peer)).toEqual(peers);
    expect(Object.keys(outcome.ratio)).toEqual(peers);
    for (const name of peers) {
      expect(outcome.peer[name]).toBeGreaterThan(0);
      expect(outcome.ratio[name] / (outcome.ours / outcome.peer[name])).toBeCloseTo(1, 2);
    }
    expect(stderr.includes('left out')).toBe(!hasCompiler);
    expect(readdirSync(join(cache, 'iommufd', 'bench'))).toHaveLength(hasCompiler ? 1 : 0);
  });

  test('leaves out what it cannot measure, and says why', () => {
    const { outcome, stderr } = figure('translate-hit', { CC: '/nowhere/cc' });
    expect(Object.keys(outcome.peer)).toEqual(['naive JS']);
    expect(Object.keys(outcome.ratio)).toEqual(['naive JS']);
    expect(stderr).toMatch(
      /^bench: left out: translate-hit, C: there is no C compiler: .*\/nowhere\/cc ENOENT\n$/,
    );
  });

  test.each([
    'map-unmap-1',
    'map-unmap-1000',
    'unmap-range-1000',
    'map-anywhere-1000',
    'open-to-first-dma',
    'fault-loop',
  ])('measures %s in simulation', (name) => {
    const { outcome, stderr } = figure(name);
    const peers = Object.keys(FIGURES.find((f) => f.name === name)!.peers);
    expect(Object.keys(outcome.peer)).toEqual(peers);
    for (const peer of peers) expect(outcome.ratio[peer]).toBeGreaterThan(0);
    expect(stderr).toBe('');
  });

  test.each(['ioctl', 'ioctl-batch-16', 'ioctl-struct'])('measures %s where the addon is built', (name) => {
    const { status, stdout, stderr } = bench(['--json', '--only', name, ...QUICK]);
    expect(status).toBe(0);
    const built = !('reason' in loadAddon());
    expect(Object.keys(JSON.parse(stdout) as object)).toEqual(built ? [name] : []);
    if (!built) expect(stderr).toContain(`bench: left out: ${name}: the native addon`);
  });

  test('leaves out the figures of the VM where there is no guest kernel', () => {
    const env = { IOMMUFD_VM_KERNEL: '/nowhere/bzImage' };
    const { status, stdout, stderr } = bench(['--json', '--only', 'vm-map-unmap', ...QUICK], env);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '{}\n' });
    expect(stderr).toMatch(/bench: left out: vm-map-unmap: (Guest kernel|QEMU) not found: /);
  });

  test.each(['ring-faults', 'ring-wakeup-p50'])('measures %s where the addon is and a C compiler', (name) => {
    const { status, stdout, stderr } = bench(['--json', '--only', name, ...QUICK]);
    expect({ status, stderr: hasCompiler ? stderr : '' }).toEqual({ status: 0, stderr: '' });
    const { [name]: outcome } = JSON.parse(stdout) as Record<string, Outcome>;
    const can = hasCompiler && !('reason' in loadAddon());
    const peers = Object.keys(FIGURES.find((f) => f.name === name)!.peers);
    expect(Object.keys(outcome?.peer ?? {})).toEqual(can ? peers : []);
  });

  test('prints a table for people', () => {
    const { status, stdout } = bench(['--only', 'translate-hit', ...QUICK]);
    expect(status).toBe(0);
    expect(stdout).toContain(`Node ${process.version}`);
    expect(stdout).toContain(TABLE_HEAD);
    expect(stdout).toMatch(/^translate-hit +[\d.,]+ ns +(C|naive JS) +[\d.,]+ ns +[\d.]+$/m);
  });

  test('lists what there is', () => {
    const { status, stdout } = bench(['--list']);
    expect(status).toBe(0);
    expect([...stdout.matchAll(/^\S+/gm)].map(([name]) => name)).toEqual(NAMES);
  });

  test('lists what is asked for, and as JSON', () => {
    const only = ['--only', NAMES[2], '--only', NAMES[0]];
    const text = bench(['--list', ...only]).stdout;
    expect([...text.matchAll(/^\S+/gm)].map(([name]) => name)).toEqual([NAMES[0], NAMES[2]]);
    const all = JSON.parse(bench(['--list', '--json']).stdout) as object[];
    const wanted = FIGURES.map(({ name, about, unit, peers, inVm }) => {
      return { name, about, unit, peers: Object.keys(peers), inVm: inVm === true };
    });
    expect(all).toEqual(wanted);
    expect(JSON.parse(bench(['--json', '--list', ...only]).stdout)).toEqual([wanted[0], wanted[2]]);
  });

  test('refuses a name that is none', () => {
    const args = ['--only', 'translate-hitt'];
    const message = `--only translate-hitt: there is no such figure; there are ${NAMES.join(', ')}`;
    expect(bench(args)).toMatchObject({ status: 2, stdout: '', stderr: `bench: ${message}\n` });
    const { status, stdout, stderr } = bench(['--json', ...args]);
    expect({ status, stderr }).toEqual({ status: 2, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({ error: { message } });
  });
});

test('instructions are of figures in the VM', () => {
  const { status, stdout, stderr } = bench(['--instructions', '--only', 'ioctl', '--only', 'vm-faults']);
  const message = '--instructions is for figures of the VM, which ioctl is not';
  expect({ status, stdout, stderr }).toEqual({ status: 2, stdout: '', stderr: `bench: ${message}\n` });
  const names = [...bench(['--instructions', '--list']).stdout.matchAll(/^\S+/gm)].map(([name]) => name);
  expect(names).toEqual(FIGURES.filter(({ inVm }) => inVm).map(({ name }) => name));
});

describe('the command line', () => {
  test('has defaults', () => {
    expect(parseOptions([], NAMES)).toEqual({
      json: false,
      readme: false,
      instructions: false,
      list: false,
      only: [],
      runs: 5,
      milliseconds: 50,
    });
    expect(parseOptions(['--help'], NAMES)).toBe('help');
    expect(parseOptions(['--only', NAMES[0], '--only', NAMES[1]], NAMES)).toMatchObject({
      only: NAMES.slice(0, 2),
    });
  });

  test.each([
    '--runs=0',
    '--runs=2.5',
    '--milliseconds=60001',
    '--fast',
    '--readme --only=ioctl',
    '--readme --json',
    '--readme --instructions',
    'translate-hit',
  ])('refuses %s', (words) => {
    expect(() => parseOptions(words.split(' '), NAMES)).toThrow(UsageError);
  });
});

describe('a run', () => {
  const script = (name: string, ...args: string[]) => ({ script: name, arguments: args });
  const run = (ours: Figure['ours'], peers: Figure['peers']) => {
    const leftOut: string[] = [];
    const outcome = runFigure(
      { name: 'figure', about: '', unit: 'ns', ours, peers },
      { runs: 2, milliseconds: 1, instructions: false, leaveOut: (what) => leftOut.push(what) },
    );
    return { outcome, leftOut };
  };
  const naive = (pages: number) => script('translate-naive', String(pages));

  test('takes medians', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
  });

  test('adds the parts of a side', () => {
    const { outcome } = run([script('fault-parts', 'map')], {
      both: [script('fault-parts', 'map'), script('fault-parts', 'page-request')],
    });
    expect(outcome).toMatchObject({ peer: { both: expect.any(Number) as number }, unit: 'ns' });
  });

  test('measures what takes long to set up less often', () => {
    const { outcome } = run([script('map-growth', '3000')], {
      'first 1,000': [script('map-growth', '1008')],
    });
    expect(outcome!.ratio['first 1,000']).toBeGreaterThan(0);
    const figures = FIGURES.filter(({ mostRuns }) => mostRuns !== undefined).map(({ name }) => name);
    expect(figures).toEqual(['map-unmap-1000000', 'map-last-of-1000000']);
  });

  test('fails where the sides compute different things', () => {
    expect(() => run([naive(16)], { more: [naive(64)] })).toThrow(
      /^figure: more computed \d+, but ours \d+$/,
    );
  });

  test('fails where a trial does', () => {
    expect(() => run([script('fault-parts', 'lunch')], {})).toThrow(
      /lunch 1 ended with status 1\n[^]*no part lunch/,
    );
  });

  test.each([16, 256, 8192])('computes the same in C, naively and in the model (%i pages)', (pages) => {
    const { outcome, leftOut } = run([script('translate', String(pages))], {
      C: [{ source: 'translate', arguments: [String(pages)] }],
      'naive JS': [naive(pages)],
    });
    expect(Object.keys(outcome!.ratio)).toEqual(hasCompiler ? ['C', 'naive JS'] : ['naive JS']);
    expect(leftOut).toEqual(hasCompiler ? [] : ['figure, C']);
  });

  test('takes turns: each side once, then each again', () => {
    const program = (text: string) => [{ program: process.execPath, arguments: ['-e', text] }];
    const sides = { ours: program(`console.log('{"value":1}')`), C: program(`console.log('{"value":2}')`) };
    const turns = [...takeTurns({ sides, runs: 2, milliseconds: 1 })];
    expect(turns.map(({ side }) => side)).toEqual(['ours', 'C', 'ours', 'C']);
    expect(turns[1]).toEqual({ side: 'C', result: { value: 2 } });
    const absent = { ...sides, C: program(`console.log('{"unavailable":"no C"}')`) };
    const others = [...takeTurns({ sides: absent, runs: 2, milliseconds: 1 })];
    expect(others.map(({ side }) => side)).toEqual(['ours', 'C', 'ours']);
  });

  test('leaves a figure out that has no trial of ours', () => {
    process.env['CC'] = '/nowhere/cc';
    const { outcome, leftOut } = run([{ source: 'ioctl', arguments: [] }], { JS: [naive(16)] });
    expect(outcome).toBeUndefined();
    expect(leftOut).toEqual(['figure']);
  });
});

test('the table has a line for each peer', () => {
  const outcome = { ours: 12.345, peer: { C: 5, slow: 12345 }, ratio: { C: 2.469, slow: 0.001 }, unit: 'ns' };
  const lines = tableLines('name', outcome).map((line) => line.trim().split(/ {2,}/));
  expect(lines).toEqual([
    ['name', '12.3 ns', 'C', '5.00 ns', '2.47'],
    ['slow', '12,345 ns', '0.00100'],
  ]);
  expect(tableLines('name', { ...outcome, peer: {}, ratio: {} })).toHaveLength(1);
});
