/** The documentation as data: its pages and their code blocks. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(__dirname, '../../..');

export interface Block {
  readonly name: string;
  readonly page: string;
  readonly language: string;
  readonly text: string;
  /** The file that it is, where the line before it ends with the file's name and a colon. */
  readonly file: string | undefined;
  /** What the page says that a shell block prints: the text block right after it. */
  readonly prints: string | undefined;
}

export const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(ROOT, 'docs')).map((file) => join('docs', file)),
];

export function readPage(page: string): string {
  return readFileSync(join(ROOT, page), 'utf8');
}

const FENCED =
  /(?:`([\w./-]+)`:\n\n)?^ *```(\w+)\n([\s\S]*?)^ *```$(?=\n\n(?: *```text\n([\s\S]*?)^ *```$)?|\n*$)/gm;

export function blocksOf(page: string): Block[] {
  return [...readPage(page).matchAll(FENCED)].map(([, file, language, text, prints], index) => ({
    ...{ name: `${page} block ${index + 1}`, page, language, text },
    ...{ file, prints: language === 'sh' ? prints : undefined },
  }));
}
