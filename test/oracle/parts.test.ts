/** The parts of the oracle that need no QEMU. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findOracleQemu } from '../../scripts/oracle/find';
import { randomScene } from '../../scripts/oracle/generate';
import { parseOptions, UsageError } from '../../scripts/oracle/options';
import { sceneText } from '../../scripts/oracle/report';
import { MODES, ROOT, type Scene } from '../../scripts/oracle/scene';
import { shrink } from '../../scripts/oracle/shrink';

test('a difference is made small and printed as a table dump', async () => {
  const scene = randomScene('legacy', 3, 5);
  const wanted = scene.steps.find((step) => step.kind === 'access')!;
  // Stands for both units: they differ wherever that access is made with the root entry there.
  const comparison = {
    run: (candidate: Scene) => {
      const step = candidate.steps.indexOf(wanted);
      const differs = step >= 0 && candidate.words.has(ROOT);
      const differences = differs ? [{ step, what: 'something' }] : [];
      return Promise.resolve({ differences, accesses: 1, faults: 0 });
    },
  };
  const small = await shrink(comparison, scene);
  expect(small.steps).toEqual([wanted]);
  expect([...small.words.keys()]).toEqual([ROOT]);
  const text = sceneText(small, (await comparison.run(small)).differences);
  expect(text).toMatch(
    /^mode legacy, RTADDR_REG 0x6000000\n {2}0x006000000 {2}0x[0-9a-f]{16} {2}root entry 0x0, word 0\n/,
  );
  expect(text).toMatch(/\n {3}0 (read|write) of 8 bytes at 0x[0-9a-f]+\n {5}differs: something$/);
});

test('the mode, the seed and the number of a scene say all', () => {
  for (const mode of MODES) {
    for (let index = 0; index < 20; index++) {
      expect(randomScene(mode, 9, index)).toEqual(randomScene(mode, 9, index));
    }
    expect(randomScene(mode, 9, 1)).not.toEqual(randomScene(mode, 9, 2));
    expect(randomScene(mode, 9, 1)).not.toEqual(randomScene(mode, 10, 1));
  }
});

describe('options', () => {
  test('defaults, and what is asked for', () => {
    const defaults = { accesses: 20_000, seed: 5, json: false, without: [] };
    expect(parseOptions(['--mode', 'legacy'], 5)).toEqual({ mode: 'legacy', ...defaults });
    const all = '--mode first-stage --accesses 10 --seed 0 --json --without partialMarks,legacyCodes'.split(
      ' ',
    );
    expect(parseOptions(all, 5)).toEqual({
      mode: 'first-stage',
      accesses: 10,
      seed: 0,
      json: true,
      without: ['partialMarks', 'legacyCodes'],
    });
    expect(parseOptions(['--help'], 5)).toBe('help');
  });

  test.each([
    [[], '--mode is'],
    [['--mode', 'nested'], '--mode is'],
    [['--mode', 'legacy', '--accesses', '0'], '--accesses is'],
    [['--mode', 'legacy', '--seed', '-1'], '--seed'],
    [['--mode', 'legacy', '--without', 'gravity'], '--without is'],
    [['--colour'], '--colour'],
  ])('%j makes no sense', (args, message) => {
    expect(() => parseOptions(args, 5)).toThrow(UsageError);
    expect(() => parseOptions(args, 5)).toThrow(message);
  });
});

test('a QEMU that is too old is not taken', () => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-old-qemu-'));
  try {
    const program = join(folder, 'qemu');
    const write = (version: string): void =>
      writeFileSync(program, `#!/bin/sh\necho QEMU emulator version ${version}\n`, { mode: 0o755 });
    const find = () => findOracleQemu({ IOMMUFD_ORACLE_QEMU: program });
    for (const old of ['7.2.22', '11.0.9', '11.1.2']) {
      write(old);
      expect(find).toThrow(/No QEMU 11\.1\.3 or later at/);
    }
    for (const version of ['11.1.3', '11.2.0', '12.0.0']) {
      write(version);
      expect(find()).toEqual({ program, version });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
