/**
 * A copy of the compiled package in which one rule is missing, and the tests that must notice. The copy lies beside `dist`, so that
 * what it imports is found as usual.
 */
import { spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface Rule {
  /** Which rule is taken out. */
  readonly name: string;
  /** Item of the proposal's list: see docs/proposal.md. */
  readonly item: string;
  /** Compiled file, below lib. */
  readonly file: string;
  /** Occurs once in the file, and what it becomes. */
  readonly from: string;
  readonly to: string;
  /** Compiled tests, below test; one of them must fail. */
  readonly tests: readonly string[];
}

const DIST = resolve(__dirname, '../..');
const ROOT = resolve(DIST, '..');
const JEST = join(ROOT, 'node_modules/jest/bin/jest.js');
/** What tests import. */
const PARTS = ['lib', 'test', 'scripts', 'examples'];

/** What Jest has counted. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  /** Files that did not run at all. */
  readonly broken: number;
}

/** Runs tests in a copy of the package, in which `change` has been made. */
export function runTests(tests: readonly string[], change?: Pick<Rule, 'file' | 'from' | 'to'>): Counts {
  mkdirSync(join(ROOT, 'reports'), { recursive: true });
  const copy = mkdtempSync(join(ROOT, 'reports/mutant-'));
  try {
    for (const part of PARTS) link(join(DIST, part), join(copy, 'dist', part));
    writeFileSync(join(copy, 'package.json'), JSON.stringify(configuration(tests)));
    if (change) edit(join(copy, 'dist/lib', change.file), change);
    const report = join(copy, 'report.json');
    // Its output would look like this run's own failures.
    const env = { ...process.env, IOMMUFD_BACKEND: 'simulated', ISOLATION_HISTORIES: '1500' };
    spawnSync(process.execPath, [JEST, '--rootDir', copy, '--silent', '--json', '--outputFile', report], {
      cwd: copy,
      timeout: 60_000,
      env,
    });
    const found = JSON.parse(readFileSync(report, 'utf8'));
    return {
      passed: found.numPassedTests,
      failed: found.numFailedTests,
      broken: found.numRuntimeErrorTestSuites,
    };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** The same folders, and the same files in them. */
function link(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) link(source, target);
    else linkSync(source, target);
  }
}

function configuration(tests: readonly string[]): object {
  return {
    name: 'mutant',
    jest: { testMatch: tests.map((test) => `<rootDir>/dist/test/${test}.test.js`), transform: {} },
  };
}

function edit(path: string, { file, from, to }: Pick<Rule, 'file' | 'from' | 'to'>): void {
  const pieces = readFileSync(path, 'utf8').split(from);
  if (pieces.length !== 2) throw new Error(`'${from}' is ${pieces.length - 1} times in ${file}`);
  // Not into the file that the package itself has.
  rmSync(path);
  writeFileSync(path, pieces.join(to));
}
