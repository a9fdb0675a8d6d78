/** docs/troubleshooting.md says of errors what errors say of themselves. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CAUSES, failure, IommuError, TEXTS } from '../../lib/errors';
import { errno, type Errno } from '../../lib/uapi';
import { withCauses } from '../../scripts/docs/causes';
import { readPage, ROOT } from './blocks';

const PAGE = readPage('docs/troubleshooting.md');

/** The section of a code. */
function section(code: string): string {
  return new RegExp(`^### ${code} [^]*?(?=^### |(?![^]))`, 'm').exec(PAGE)?.[0] ?? '';
}

test('the page has what the table of causes has (to write it: npm run docs)', () => {
  expect(PAGE).toBe(withCauses(PAGE));
});

test('the hint of every error with a known cause is in the section of its code', () => {
  let count = 0;
  for (const [place, byCode] of Object.entries(CAUSES))
    for (const code of Object.keys(byCode) as Errno[]) {
      const [, path] = /^open (.*)$/.exec(place) ?? [];
      const file = path === '/dev/vfio/devices' ? `${path}/vfio0` : path;
      const where =
        path === undefined ? { syscall: 'ioctl', request: place } : { syscall: 'open', path: file };
      const error = failure(-errno[code], where);
      expect(error).toBeInstanceOf(IommuError);
      expect(error.errno).toBe(-errno[code]);
      const said = section(code).replaceAll('\\', '');
      expect(said).toContain(`(${error.errno}): ${TEXTS[code]}`);
      expect(said).toMatch(new RegExp(`^- .*\`${place}\`.*: .*`, 'm'));
      expect(said).toContain(error.hint);
      count++;
    }
  expect(count).toBeGreaterThan(60);
});

test('every code that lib gives by itself is explained', () => {
  const folders = ['lib', 'lib/cli', 'lib/linux', 'lib/rings'];
  const files = folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: folder !== 'lib', encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(join(ROOT, folder, name), 'utf8')),
  );
  const given = files.flatMap((text) => [...text.matchAll(/refusal\(\s*'(\w+)'/g)].map(([, code]) => code));
  expect(new Set(given).size).toBeGreaterThan(10);
  for (const code of given) expect(PAGE).toMatch(new RegExp(`^- .*\\*\\*${code}\\*\\*`, 'm'));
});
