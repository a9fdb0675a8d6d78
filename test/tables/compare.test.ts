// Tables of a real Linux, dumped in the VM, and what is noticed when they are changed.
import { join } from 'node:path';
import { compareDump } from '../../scripts/tables/compare';
import { packPages, readDump, unpackPages, type Dump } from '../../scripts/tables/dump';
import { listedPages } from '../../scripts/tables/linux';

const EDU = 0x20;
const fixture = (name: string) => readDump(join(__dirname, `../../../test/fixtures/vtd-tables-${name}.json`));
const dump = fixture('second-stage');
const EDU_FILE = '0000:00:04.0/domain_translation_struct';

/** The dump with a 64-bit word of memory changed. */
function withWord(address: bigint, change: (word: bigint) => bigint): Dump {
  const pages = new Map([...unpackPages(dump)].map(([at, bytes]) => [at, Uint8Array.from(bytes)]));
  const page = pages.get(address & ~0xfffn)!;
  const view = new DataView(page.buffer);
  const at = Number(address & 0xfffn);
  view.setBigUint64(at, change(view.getBigUint64(at, true)), true);
  return { ...dump, pages: packPages(pages) };
}

/** Address of the entry for an IOVA in the last table that the entry above names. */
const lastEntry = (above: bigint, iova: bigint) =>
  (above & 0x000f_ffff_ffff_f000n) + 8n * ((iova >> 12n) & 0x1ffn);

const page = (iova: bigint) => listedPages(dump.files, EDU, 0)!.find((listed) => listed.iova === iova)!;

function differencesWithout(pattern: RegExp): string[] {
  const text = dump.files[EDU_FILE];
  const less = text.replace(pattern, '');
  expect(less).not.toBe(text);
  return compareDump({ ...dump, files: { ...dump.files, [EDU_FILE]: less } }).differences;
}

test.each(['legacy', 'second-stage', 'first-stage'])(
  'the model finds what Linux 7.3.4 listed, and no more: %s',
  (name) => {
    expect(compareDump(fixture(name))).toMatchObject({
      slots: 9,
      lines: 690,
      pages: 1712,
      interrupts: 13,
      differences: [],
    });
  },
);

describe('a difference is seen', () => {
  test('where a page is somewhere else', () => {
    const { path } = page(0x10000n);
    const changed = withWord(lastEntry(path[2], 0x10000n), (word) => word ^ 0x1000n);
    expect(compareDump(changed).differences).toEqual([
      expect.stringMatching(/^requester 0x20 PASID 0: only Linux lists 0x10000: /),
      expect.stringMatching(/^requester 0x20 PASID 0: Linux does not list 0x10000: /),
      expect.stringMatching(/ read of 0x10000: the model says 0x\w+, Linux lists 0x\w+$/),
      expect.stringMatching(/ write of 0x10000: /),
    ]);
  });

  test('where a page may not be written any more', () => {
    const { path } = page(0x10000n);
    const changed = withWord(lastEntry(path[2], 0x10000n), (word) => word & ~2n);
    expect(compareDump(changed).differences.at(-1)).toMatch(
      / write of 0x10000: the model says fault 0x85, Linux lists 0x\w+$/,
    );
  });

  test('where a page has a reserved bit', () => {
    const { path } = page(0x10000n);
    const changed = withWord(lastEntry(path[2], 0x10000n), (word) => word | (1n << 50n));
    expect(compareDump(changed).differences.at(-1)).toMatch(/the model says fault 0x7a/);
  });

  test('where a table has a page more', () => {
    const { path } = page(0x10000n);
    const at = lastEntry(path[2], 0x100000n);
    expect(compareDump(withWord(at, () => 0x1234003n)).differences).toEqual([
      expect.stringMatching(/Linux does not list 0x100000: /),
      expect.stringMatching(/ read of 0x100000: the model says 0x1234000, Linux lists nothing$/),
      expect.stringMatching(/ write of 0x100000: the model says 0x1234000, Linux lists nothing$/),
    ]);
  });

  test('where Linux lists one page less', () => {
    expect(differencesWithout(/^0x0000000000010 .*\n/m)).toHaveLength(3);
  });

  test('where Linux lists one large page less', () => {
    expect(differencesWithout(/^0x0000000140000 .*\n/m)).toHaveLength(1 + 2 * 512);
  });

  const ENTRY = 0x1_0010_0000n + 16n * 20n;
  test.each([
    ['has another vector', 0n, 16n, /^interrupt 20: the model sends '0x0 0x\w+ 0x\w+', Linux's entry says/],
    ['is another device’s', 8n, 4n, /^interrupt 20: the model sends '', Linux's entry says/],
    ['has a reserved bit', 8n, 30n, /^interrupt 20: the model sends '', Linux's entry says/],
  ])('where an interrupt %s', (_how, word, bit, message) => {
    const { differences } = compareDump(withWord(ENTRY + word, (value) => value ^ (1n << bit)));
    expect(differences).toEqual(
      expect.arrayContaining([
        expect.stringMatching(message),
        expect.stringMatching(/^interrupt 20: the table has 0x/),
      ]),
    );
  });

  test('where any device may send an interrupt', () => {
    const changed = withWord(ENTRY + 8n, (value) => value & ~(1n << 18n));
    expect(compareDump(changed).differences).toContain(
      'interrupt 20: the model lets another requester send it',
    );
  });

  test('where the table has an interrupt more', () => {
    expect(compareDump(withWord(ENTRY + 16n * 100n, () => 1n)).differences).toEqual([
      expect.stringMatching(/^interrupt 120: the model sends '0x0 0xfee00000 0x0', Linux's entry says ''$/),
      expect.stringMatching(/^interrupt 120: the table has 0x0 0x1$/),
    ]);
  });

  test('where a device has another domain', () => {
    const [slot] = dump.files.dmar_translation_struct.match(/^00:04\.0.*$/m)!;
    const [, , context] = slot.split('\t');
    const directory = BigInt(context.split(':')[1]) & ~0xfffn;
    const pages = unpackPages(dump);
    const table = new DataView(pages.get(directory)!.buffer.slice(0)).getBigUint64(0, true) & ~0xfffn;
    const changed = withWord(table + 8n, (word) => word + 100n);
    expect(compareDump(changed).differences).toEqual([
      expect.stringMatching(/^dmar_translation_struct: only Linux lists requester 0x20 PASID 0/),
      expect.stringMatching(/^dmar_translation_struct: Linux does not list requester 0x20 PASID 0/),
    ]);
  });
});
