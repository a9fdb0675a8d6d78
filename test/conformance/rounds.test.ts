import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Generator } from '../../scripts/conformance/generate/flavours';
import { parseOptions, UsageError } from '../../scripts/conformance/options';
import { simulatedPeer } from '../../scripts/conformance/peer';
import { ask, putDown, roundFile, serve } from '../../scripts/conformance/rounds';

const folder = mkdtempSync(join(tmpdir(), 'conformance-rounds-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('a guest answers rounds as the same kernel here does, until it is told to end', async () => {
  const served = serve(folder, simulatedPeer());
  const here = simulatedPeer();
  const generator = { seed: 11, excluded: [], only: ['plain'] };
  const batch = { generator, first: 5, count: 30 };
  const alive = () => undefined;
  const bytes = await ask(folder, 0, { kind: 'hashes', batch }, alive);
  const hashes = Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
  expect(hashes).toEqual([...here.hashNow(batch)]);
  const sequences = [new Generator(generator).sequence(5)];
  const records: unknown = JSON.parse((await ask(folder, 1, { kind: 'run', sequences }, alive)).toString());
  expect(records).toEqual(here.runNow(sequences));
  putDown(roundFile(folder, 2, 'json'), '{"kind":"end"}');
  await served;
  expect(readdirSync(folder)).toEqual(['round-2.json']);
});

test('a guest that is gone is an error, with its reason', async () => {
  const asked = ask(folder, 9, { kind: 'run', sequences: [] }, () => 'it panicked');
  await expect(asked).rejects.toThrow('round 9: it panicked');
});

describe('options', () => {
  test('a fresh seed where none is given', () => {
    expect(parseOptions(['--compare'], 99)).toMatchObject({ mode: 'compare', seed: 99 });
    expect(parseOptions(['--compare', '--seed', '0'], 99)).toMatchObject({ seed: 0 });
    expect(parseOptions(['--backend', 'linux', '--json'], 1)).toMatchObject({
      backend: 'linux',
      sequences: 0,
    });
    expect(parseOptions(['--help'], 1)).toBe('help');
  });

  test.each([
    [[]],
    [['--backend', 'bsd']],
    [['--compare', '--backend', 'linux']],
    [['--compare', '--seed', '4294967296']],
    [['--compare', '--sequences', '-1']],
    [['--compare', '--flavours', 'plain,strange']],
    [['--what']],
  ])('%j is no command line', (args) => {
    expect(() => parseOptions(args, 1)).toThrow(UsageError);
  });
});
