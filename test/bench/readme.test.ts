/** The table of figures in README.md: that it has all of them, and how it is made. Its numbers are those of some run. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FIGURES } from '../../scripts/bench/figures';
import { BEGIN, END, missingOf, readmeLines, tablePart, withTable } from '../../scripts/bench/readme';

const README = readFileSync(join(__dirname, '../../../README.md'), 'utf8');
const NUMBER = String.raw`[\d,]+(?:\.\d+)?`;
const outcome = { ours: 12.345, peer: { C: 5, slow: 12345 }, ratio: { C: 2.469, slow: 0.001 }, unit: 'ns' };
const figure = { name: 'one', about: 'a thing', unit: 'ns', ours: [], peers: { C: [], slow: [] } };

describe('README.md', () => {
  const [, conditions, , head, rule, ...rows] = tablePart(README)!.split('\n').slice(0, -2).slice(1);
  const cells = rows.map((row) => row.split('|').map((cell) => cell.trim()));

  test('says how it was measured', () => {
    expect(conditions ?? '').toMatch(/^Node v[\d.]+, \d+ × .+; medians of \d+ runs of \d+ ms:$/);
    expect([head, rule].map((line) => line.split('|').length)).toEqual([6, 6]);
  });

  test('has every figure, in order', () => {
    expect(cells.map(([, name, about]) => [name, about])).toEqual(
      FIGURES.map(({ name, about }) => [`\`${name}\``, about]),
    );
  });

  test.each(FIGURES.map((f, i) => [f.name, f, i] as const))('%s is beside its peers', (_name, f, i) => {
    const [, , , ours, peers] = cells[i];
    expect(ours).toMatch(new RegExp(`^${NUMBER} ${f.unit}$`));
    const each = Object.keys(f.peers).map((peer) => `${peer} ${NUMBER} ${f.unit} \\(${NUMBER}\\)`);
    expect(peers).toMatch(new RegExp(`^${each.join('; ')}$`));
  });
});

test('a table is written between the comments', () => {
  const lines = readmeLines('Node', new Map([[figure, outcome]]));
  expect(withTable(`before\n${BEGIN}\nold\n${END}\nafter\n`, lines).split('\n')).toEqual([
    'before',
    BEGIN,
    '',
    'Node:',
    '',
    '| Figure | What    | Ours    | Beside: theirs (ours ÷ theirs)             |',
    '| ------ | ------- | ------- | ------------------------------------------ |',
    '| `one`  | a thing | 12.3 ns | C 5.00 ns (2.47); slow 12,345 ns (0.00100) |',
    '',
    END,
    'after',
    '',
  ]);
  expect(() => withTable('no comments', lines)).toThrow(/there is no place for the table/);
  expect(() => withTable(`${END}${BEGIN}`, lines)).toThrow(/there is no place for the table/);
});

test('what a table would lack is known', () => {
  expect(missingOf(figure, outcome)).toBeUndefined();
  expect(missingOf(figure, undefined)).toBe('one');
  expect(missingOf(figure, { ...outcome, peer: { C: 5 } })).toBe('one, slow');
});
