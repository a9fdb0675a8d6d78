/** A layout as SVG. */
import { CHARACTER, FONT_SIZE, layOut, LINE, PADDING, TITLE, type Layout, type PlacedBox } from './layout';
import type { PlacedLink } from './layout';
import type { BoxKind, Model } from './model';

const MARGIN = 24;
/** Above each Iommu: its title. */
const HEAD = 34;
const LEGEND = 44;

interface Style {
  readonly fill: string;
  readonly stroke: string;
  /** In the legend. */
  readonly name: string;
}

const STYLES: Readonly<Record<BoxKind, Style>> = {
  device: { fill: '#e8f0fe', stroke: '#3b6fd4', name: 'device' },
  'other-device': { fill: '#f5f5f5', stroke: '#9a9a9a', name: 'not bound here' },
  kernel: { fill: '#e6f4ea', stroke: '#2e7d4f', name: 'kernel-managed' },
  nested: { fill: '#e0f5f7', stroke: '#12808f', name: 'nested in software' },
  user: { fill: '#fff1e0', stroke: '#c7761b', name: "user's table" },
  memory: { fill: '#eeeeee', stroke: '#555555', name: 'memory' },
};

/** All of them, one below the other. */
export function drawSvg(models: readonly Model[]): string {
  const layouts = models.map(layOut);
  const legend = legendOf();
  const width = 2 * MARGIN + Math.max(legend.width, ...models.map(widthOf(layouts)));
  let y = MARGIN;
  const parts = layouts.map((layout, i) => {
    const part = `<g transform="translate(${MARGIN} ${y})">${title(models[i].title)}<g transform="translate(0 ${HEAD})">${draw(layout)}</g></g>`;
    y += HEAD + layout.height + MARGIN;
    return part;
  });
  const height = y + LEGEND;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img"`,
    ` font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="${FONT_SIZE}" fill="#222222">`,
    '<title>Devices, address spaces and memory of /dev/iommu</title>',
    `<defs>${marker()}</defs>`,
    `<rect class="page" width="${width}" height="${height}" fill="#ffffff"/>`,
    ...parts,
    `<g transform="translate(${MARGIN} ${y})">${legend.text}</g>`,
    '</svg>\n',
  ].join('\n');
}

const widthOf = (layouts: readonly Layout[]) => (model: Model, i: number) =>
  Math.ceil(Math.max(layouts[i].width, model.title.length * CHARACTER * 1.2));

function title(text: string): string {
  return `<text class="title" y="16" font-size="14" font-weight="bold">${escape(text)}</text>`;
}

function draw(layout: Layout): string {
  const headings = layout.headings.map(
    ({ x, y, text }) => `<text class="heading" x="${x}" y="${y}" fill="#777777">${escape(text)}</text>`,
  );
  const frames = layout.frames.map(
    ({ x, y, width, height, label }) =>
      `<g class="frame"><rect x="${x}" y="${y}" width="${width}" height="${height}" rx="8" fill="none" stroke="#9a9a9a" stroke-dasharray="5 4"/>` +
      `<text x="${x + PADDING}" y="${y + 16}" fill="#777777">${escape(label)}</text></g>`,
  );
  return [...headings, ...frames, ...layout.links.map(drawLink), ...layout.boxes.map(drawBox)].join('\n');
}

function drawBox({ box, x, y, width, height }: PlacedBox): string {
  const { fill, stroke } = STYLES[box.kind];
  const rows = box.rows.map(
    ({ text }, i) =>
      `<text x="${x + PADDING}" y="${y + TITLE + i * LINE + FONT_SIZE}">${escape(text)}</text>`,
  );
  return (
    `<g class="box ${box.kind}" data-id="${escape(box.id)}">` +
    `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="5" fill="${fill}" stroke="${stroke}" stroke-width="1.5"/>` +
    `<text x="${x + PADDING}" y="${y + 17}" font-weight="bold">${escape(box.title)}</text>${rows.join('')}</g>`
  );
}

function drawLink({ from, to, points }: PlacedLink): string {
  const [start, ...rest] = points;
  let [path, at] = [`M${start.x} ${start.y}`, start];
  rest.forEach((point, i) => {
    const half = (at.x + point.x) / 2;
    // Between columns a curve; across one a line.
    path +=
      i % 2 === 0 ? ` C${half} ${at.y} ${half} ${point.y} ${point.x} ${point.y}` : ` L${point.x} ${point.y}`;
    at = point;
  });
  const dashes = to.kind === 'memory' ? ' stroke-dasharray="2 3"' : '';
  const ends = `data-from="${escape(from.id)}" data-to="${escape(to.id)}"`;
  return `<path class="link" ${ends} d="${path}" fill="none" stroke="${STYLES[from.kind].stroke}" stroke-width="1.5"${dashes} marker-end="url(#arrow)"/>`;
}

function marker(): string {
  return (
    '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">' +
    '<path d="M0 0L8 4L0 8z" fill="#555555"/></marker>'
  );
}

const SWATCH = 14;

function legendOf(): { text: string; width: number } {
  let x = 0;
  const entries = Object.values(STYLES).map(({ fill, stroke, name }) => {
    const at = x;
    x += SWATCH + 6 + Math.ceil(name.length * CHARACTER) + 18;
    return (
      `<rect x="${at}" y="0" width="${SWATCH}" height="${SWATCH}" rx="3" fill="${fill}" stroke="${stroke}"/>` +
      `<text x="${at + SWATCH + 6}" y="${FONT_SIZE - 1}">${escape(name)}</text>`
    );
  });
  return { text: `<g class="legend">${entries.join('')}</g>`, width: x };
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}
