/**
 * What docs/ has people do with a virtual machine or as root, done: getting-started.md to its end, where the driver that was
 * built for a simulated device runs on Linux, the guests of the other pages, and hardware.md from top to bottom.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { blocksOf, type Block } from '../docs/blocks';
import { Tutorial } from '../docs/tutorial';

jest.setTimeout(600_000);

let tutorial: Tutorial;

beforeAll(() => {
  tutorial = new Tutorial();
  tutorial.follow('docs/getting-started.md');
  tutorial.follow('docs/testing.md');
  expect(tutorial.run('npx iommufd build', 'any')).toMatchObject({
    status: 0,
    output: expect.stringContaining('the native addon is built') as unknown,
  });
});
afterAll(() => tutorial.remove());

const scripts = (page: string): Block[] => blocksOf(page).filter(({ language }) => language === 'sh');

test('the driver of getting-started.md runs in the guest, and says what the page says', () => {
  const last = scripts('docs/getting-started.md').at(-1)!;
  expect(last).toMatchObject({ text: 'npx iommufd vm node dist/main.js\n', prints: 'linux: hello\n' });
  expect(tutorial.run(last.text, 'any')).toEqual({ status: 0, output: last.prints });
});

test('so does the test of testing.md, with Jest', () => {
  const { text, prints } = scripts('docs/testing.md').at(-1)!;
  expect(prints).toContain('PASS');
  const { status, output } = tutorial.run(text, 'any');
  expect({ status, output }).toEqual({
    status: 0,
    output: expect.stringContaining(prints!.trim()) as unknown,
  });
});

const guests = scripts('docs/vm.md').flatMap(({ text }) =>
  text.split('\n').filter((line) => line.startsWith('npx iommufd vm ')),
);

test('vm.md starts guests', () => expect(guests.length).toBeGreaterThan(2));

test.each(guests)('%s', (command) => {
  expect(tutorial.run(command, 'any')).toMatchObject({ status: 0 });
});

test('hardware.md, as root of a guest whose devices have no driver', () => {
  const lines = blocksOf('docs/hardware.md').flatMap(({ language, text }) =>
    language === 'ts' ? ['node hardware.mjs'] : text.trim().split('\n'),
  );
  const program = blocksOf('docs/hardware.md').find(({ language }) => language === 'ts')!;
  // No type is in it, but `using`, which Node 20 has not.
  expect(program.text).toContain('using iommu');
  writeFileSync(join(tutorial.folder, 'hardware.mjs'), program.text.replace('using iommu', 'const iommu'));
  // As long as no device is VFIO's, the doctor has something to say.
  const script = lines.map((line) =>
    line.startsWith('npx iommufd doctor') ? `${line} || [ $? = 1 ]` : line,
  );
  const shell = ['set -e', 'sudo() { "$@"; }', 'USER=root', ...script].join('\n');
  writeFileSync(join(tutorial.folder, 'hardware.sh'), shell);
  const { status, output } = tutorial.run('npx iommufd vm --no-bind sh hardware.sh', 'any');
  expect({ status, output }).toMatchObject({ status: 0 });
  for (const said of [
    'PROBLEM  devices',
    '0000:00:04.0: no driver -> vfio-pci, /dev/vfio/devices/vfio0',
    'linux ',
    '0000:00:04.0 vfio-pci',
    '0000:00:04.0: vfio-pci -> no driver',
  ])
    expect(output).toContain(said);
});
