/** The part of docs/troubleshooting.md that is made from the errors' own table of causes (lib/errors.ts). */
import { CAUSES, TEXTS } from '../../lib/errors';
import { errno, type Errno } from '../../lib/uapi';

const BEGIN = '<!-- From lib/errors.ts: npm run -s docs -->\n';
const END = '<!-- End of what is made. -->\n';

/** The page with the part made anew. */
export function withCauses(page: string): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`the page has no '${BEGIN.trim()}' with its end`);
  return `${page.slice(0, begin)}${BEGIN}\n${causes()}\n${page.slice(end)}`;
}

/** A section for each code that has a known cause, by its name. */
function causes(): string {
  const codes = (Object.keys(errno) as Errno[]).filter((code) => causesOf(code).size > 0);
  return codes.sort().map(section).join('\n');
}

function section(code: Errno): string {
  const entries = [...causesOf(code)].map(
    ([cause, places]) => `- ${places.map((place) => `\`${place}\``).join(', ')}: ${escaped(cause)}\n`,
  );
  return `### ${code} (${-errno[code]}): ${TEXTS[code]}\n\n${entries.join('')}`;
}

/** The causes of a code, and where each is the one. */
function causesOf(code: Errno): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const [place, byCode] of Object.entries(CAUSES)) {
    const cause = byCode[code];
    if (cause !== undefined) found.set(cause, [...(found.get(cause) ?? []), place]);
  }
  return found;
}

function escaped(text: string): string {
  return text.replaceAll('<', '\\<').replaceAll('*', '\\*');
}
