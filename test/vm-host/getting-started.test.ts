/** docs/getting-started.md to its end: the driver that was built for a simulated device runs on Linux, in a guest. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { blocksOf, ROOT } from '../docs/blocks';
import { Tutorial } from '../docs/tutorial';

jest.setTimeout(600_000);

const PAGE = 'docs/getting-started.md';
let tutorial: Tutorial;

beforeAll(() => {
  tutorial = new Tutorial();
});
afterAll(() => tutorial.remove());

test('the same driver runs in the guest, and says what the page says', () => {
  tutorial.follow(PAGE);
  // What `npm rebuild iommufd` makes.
  const built = join(tutorial.folder, 'node_modules/iommufd/build/Release/iommufd.node');
  cpSync(join(ROOT, 'build/Release/iommufd.node'), built);
  const last = blocksOf(PAGE)
    .filter(({ language }) => language === 'sh')
    .at(-1)!;
  expect(last).toMatchObject({ text: 'npx iommufd vm node dist/main.js\n', prints: 'linux: hello\n' });
  expect(tutorial.run(last.text, 'any')).toEqual({ status: 0, output: last.prints });
});
