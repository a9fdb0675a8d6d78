// The table in README.md: Markdown, as prettier leaves it, between two comments.
import type { Figure } from './figures';
import type { Outcome } from './run';
import { number } from './table';

export const BEGIN = '<!-- The next lines are written by `npm run bench -- --readme` -->';
export const END = '<!-- Until here -->';

const HEAD = ['Figure', 'What', 'Ours', 'Beside: theirs (ours ÷ theirs)'];

function row(cells: readonly string[], widths: readonly number[]): string {
  return `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
}

function cellsOf({ name, about }: Figure, { ours, peer, ratio, unit }: Outcome): string[] {
  const peers = Object.entries(peer).map(
    ([key, theirs]) => `${key} ${number(theirs)} ${unit} (${number(ratio[key])})`,
  );
  return [`\`${name}\``, about, `${number(ours)} ${unit}`, peers.join('; ')];
}

/** What of a figure, or of which peer, is not there; undefined where all is. */
export function missingOf({ name, peers }: Figure, outcome: Outcome | undefined): string | undefined {
  if (!outcome) return name;
  const peer = Object.keys(peers).find((key) => !(key in outcome.peer));
  return peer === undefined ? undefined : `${name}, ${peer}`;
}

/** A row for each figure. `conditions`: under which all were measured. */
export function readmeLines(conditions: string, outcomes: ReadonlyMap<Figure, Outcome>): string[] {
  const rows = [HEAD, ...[...outcomes].map(([figure, outcome]) => cellsOf(figure, outcome))];
  const widths = HEAD.map((_, i) => Math.max(...rows.map((cells) => cells[i].length)));
  const rule = widths.map((width) => '-'.repeat(width));
  return [`${conditions}:`, '', ...[rows[0], rule, ...rows.slice(1)].map((cells) => row(cells, widths))];
}

/** Between the two comments; undefined where they are not. */
export function tablePart(readme: string): string | undefined {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  return begin < 0 || end < begin ? undefined : readme.slice(begin + BEGIN.length, end);
}

/** The README with `lines` in place of what is between its two comments. Throws where they are not. */
export function withTable(readme: string, lines: readonly string[]): string {
  const part = tablePart(readme);
  if (part === undefined) throw new Error(`there is no place for the table: '${BEGIN}' … '${END}'`);
  return readme.replace(BEGIN + part + END, () => [BEGIN, '', ...lines, '', END].join('\n'));
}
