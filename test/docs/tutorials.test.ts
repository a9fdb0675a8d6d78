/** The pages that build something, followed from the first line to the last. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { blocksOf, PAGES, ROOT } from './blocks';
import { missingLine, needsMachine, Tutorial } from './tutorial';

jest.setTimeout(120_000);

const START = 'docs/getting-started.md';
const TESTING = 'docs/testing.md';
const WORKFLOW = '.github/workflows/test.yml';
let tutorial: Tutorial;

beforeAll(() => {
  tutorial = new Tutorial();
});
afterAll(() => tutorial.remove());

test('getting started ends with a passing test, a running program, and nothing compiled', () => {
  tutorial.follow(START);
  expect(existsSync(join(tutorial.folder, 'node_modules/iommufd/dist/lib/index.js'))).toBe(true);
  expect(existsSync(join(tutorial.folder, 'node_modules/iommufd/build'))).toBe(false);
  expect(existsSync(join(tutorial.folder, 'node_modules/iommufd/scripts/vm/kernel'))).toBe(true);
  // What is left out needs root, minutes or QEMU; test/vm-host follows that.
  expect(tutorial.leftOut).toEqual([
    expect.stringMatching(/^sudo apt-get install /),
    'npx iommufd build',
    'node_modules/iommufd/scripts/vm/kernel',
    'npx iommufd vm node dist/main.js',
  ]);
});

test('the apt command names all that QEMU, the addon and the kernel need', () => {
  const [command] = tutorial.leftOut;
  const named = command.split(' ').slice(4);
  // g++ brings these.
  const brought = ['gcc', 'binutils', 'libc6-dev'];
  const text = readFileSync(join(ROOT, 'scripts/vm/kernel'), 'utf8');
  const needed = [...text.matchAll(/^ {2}for (?:tool|header) in (.*); do$/gm)].flatMap(([, list]) =>
    list.split(' ').map((pair) => pair.split(':')[1]),
  );
  expect(needed.length).toBeGreaterThan(8);
  const all = ['qemu-system-x86', 'python3', 'make', 'g++', ...needed];
  expect([...named].sort()).toEqual([...new Set(all)].filter((name) => !brought.includes(name)).sort());
});

test('testing goes on from there, and its tests pass', () => {
  tutorial.follow(TESTING);
  expect(tutorial.leftOut.at(-1)).toBe(
    'IOMMUFD_BACKEND=linux npx iommufd vm npx jest --watchman=false --testTimeout 60000 both',
  );
});

test('the workflow is YAML, its commands run in a fresh copy, on versions of Node that the package takes', () => {
  const text = blocksOf(TESTING).find(({ file }) => file === WORKFLOW)!.text;
  const prettier = join(ROOT, 'node_modules/prettier/bin/prettier.cjs');
  const check = spawnSync(process.execPath, [prettier, '--parser', 'yaml'], {
    input: text,
    encoding: 'utf8',
  });
  expect(check).toMatchObject({ status: 0, stderr: '' });
  for (const key of ['name', 'on', 'jobs', '    runs-on', '    steps'])
    expect(`\n${text}`).toContain(`\n${key}:`);
  const [, versions] = /node: \[(.*)\]/.exec(text)!;
  const { engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    engines: { node: string };
  };
  expect(Math.min(...versions.split(', ').map(Number))).toBe(parseInt(engines.node.slice(2)));
  rmSync(join(tutorial.folder, 'node_modules'), { recursive: true });
  rmSync(join(tutorial.folder, 'dist'), { recursive: true });
  expect(tutorial.runWorkflow(WORKFLOW)).toEqual(['npm ci', 'npm test']);
});

test('the tests of the project can fail', () => {
  const broken =
    "sed -i 's/i \\* 7/i \\* 8/; s/toEqual(bytes)/toEqual(bytes.slice(1))/' dist/driver.test.js && npx jest";
  expect(tutorial.run(broken)).toMatchObject({
    status: 1,
    output: expect.stringContaining('1 failed') as unknown,
  });
});

test('no other page has files', () => {
  const withFiles = new Set(PAGES.filter((page) => blocksOf(page).some(({ file }) => file !== undefined)));
  expect([...withFiles].sort()).toEqual([START, TESTING]);
});

test('what a page says that is printed is looked for, line by line and in order', () => {
  expect(missingLine('one\n  two', 'zero\none\ntwo (3 ms)')).toBeUndefined();
  expect(missingLine('two\none', 'one\ntwo')).toBe('one');
  expect(needsMachine('npm test')).toBe(false);
});
