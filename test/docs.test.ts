/** The documentation's programs: every TypeScript block compiles against the package and runs in simulation. */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blocksOf, PAGES, readPage, ROOT } from './docs/blocks';

const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');

const blocks = PAGES.flatMap(blocksOf);
// Blocks that are files belong together: test/docs/tutorials.test.ts builds and runs them.
const programs = blocks.filter(({ language, file }) => language === 'ts' && file === undefined);
const scripts = blocks.filter(({ language }) => language === 'sh');
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

/** What comments behind a console.log say that it prints, and is not printed. An explanation may follow. */
function saidWrongly(program: string, printed: string): string[] {
  const lines = printed.trim().split('\n');
  const inOneLine = printed.replace(/\s+/g, ' ');
  const isPrinted = (said: string) =>
    inOneLine.includes(said) ||
    lines.some((line) => [',', ':', ';'].some((end) => said.startsWith(line + end)));
  const comments = [...program.matchAll(/^ *console\.log\(.*\); \/\/ (.*)$/gm)].map(([, said]) => said);
  return comments.filter((said) => !isPrinted(said));
}

test('a comment that is not true is found', () => {
  expect(
    saidWrongly('console.log(1); // 1\nconsole.log(2); // 2: two\nconsole.log(3); // 4', '1\n2\n3\n'),
  ).toEqual(['4']);
});

describe('programs', () => {
  let folder: string;
  let compiler: ReturnType<typeof spawnSync>;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'iommufd-docs-'));
    mkdirSync(join(folder, 'node_modules/@types'), { recursive: true });
    symlinkSync(ROOT, join(folder, 'node_modules/iommufd'));
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(folder, 'node_modules/@types/node'));
    symlinkSync(join(ROOT, 'node_modules/undici-types'), join(folder, 'node_modules/undici-types'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    programs.forEach(({ text }, i) => writeFileSync(join(folder, `program${i}.ts`), text));
    const options = ['--module', 'nodenext', '--target', 'es2022', '--lib', 'es2023,esnext.disposable'];
    const files = programs.map((_, i) => `program${i}.ts`);
    compiler = spawnSync(process.execPath, [TSC, '--strict', '--types', 'node', ...options, ...files], {
      cwd: folder,
      encoding: 'utf8',
    });
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  test('are there, and compile', () => {
    expect(programs.length).toBeGreaterThan(2);
    expect(compiler.stdout).toBe('');
  });

  test.each(programs.map(({ name }, index) => [name, index] as const))('%s runs', (_name, index) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, `program${index}.js`)], {
      encoding: 'utf8',
      timeout: 20_000,
      env: { ...process.env, IOMMUFD_BACKEND: 'simulated' },
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).not.toBe('');
    expect(saidWrongly(programs[index].text, stdout)).toEqual([]);
  });
});

test('shell commands name scripts that exist', () => {
  const named = scripts.flatMap(({ text }) =>
    [...text.matchAll(/npm run (?:-s )?([\w:]+)/g)].map(([, name]) => name),
  );
  expect(named.length).toBeGreaterThan(5);
  for (const name of named) expect(Object.keys(manifest.scripts)).toContain(name);
});

describe('the command iommufd in shell commands', () => {
  const lines = scripts.flatMap(({ name, text }) =>
    text
      .split('\n')
      .filter((line) => line.includes('npx iommufd '))
      .map((line) => [name, line] as const),
  );
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(ROOT, 'dist/lib/cli/main.js'), ...args], {
      encoding: 'utf8',
      env: { ...process.env, IOMMUFD_BACKEND: 'simulated' },
    });
  /** Commands that look only: they are run, on the simulated machine; the tests of the others are in guests. */
  const LOOKING = ['doctor', 'devices', 'demo', '--help'];

  test('is there', () => expect(lines.length).toBeGreaterThan(5));

  test.each(lines)('%s: %s', (_name, line) => {
    const [, words] = /npx iommufd (.*)$/.exec(line)!;
    const [command, ...args] = words.split(' ');
    const known = run(command, '--help').stdout;
    // What follows is the command of a guest.
    const [own] = words.split(' npx ');
    for (const [option] of own.matchAll(/ --\w[\w-]*/g)) expect(known).toContain(option);
    if (!LOOKING.includes(command) && !args.includes('--help')) return;
    // The simulated machine has no disk at 00:05.0, but a DMA engine, which is VFIO's.
    expect(run(command, ...args)).toMatchObject({ status: 0, stderr: '' });
  });
});

test('links lead somewhere', () => {
  for (const page of PAGES)
    for (const [, target] of readPage(page).matchAll(/\]\((?!https?:)([^)#]+)/g))
      expect([page, target, existsSync(join(ROOT, page, '..', target))]).toEqual([page, target, true]);
});
