/** The picture as a renderer shows it: resvg, which knows nothing of ours, makes pixels of it. */
import { Resvg } from '@resvg/resvg-js';
import { Iommu } from '../../lib';
import { modelOf } from '../../lib/cli/graph/model';
import { drawSvg } from '../../lib/cli/graph/svg';
import { readPicture, type Rectangle } from './svg-reader';

function render(svg: string) {
  const { width, height, pixels } = new Resvg(svg, {
    font: { defaultFontFamily: 'DejaVu Sans Mono' },
  }).render();
  const at = (x: number, y: number): string =>
    pixels.subarray(4 * (Math.floor(y) * width + Math.floor(x))).toString('hex', 0, 3);
  const colours = ({ left, top, right, bottom }: Rectangle): Set<string> => {
    const found = new Set<string>();
    for (let y = Math.ceil(top); y < bottom; y++)
      for (let x = Math.ceil(left); x < right; x++) found.add(at(x, y));
    return found;
  };
  return { width, height, at, colours };
}

/** Without any font there is nothing to see of text. */
const hasFonts =
  render(
    '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="15">M</text></svg>',
  ).colours({
    ...{ left: 0, top: 0, right: 20, bottom: 20 },
  }).size > 1;

function scene(): string {
  const iommu = Iommu.open({ backend: 'simulated' });
  const root = iommu.createAddressSpace();
  root.map(iommu.allocateDma(0x10000), { iova: 0x4000_0000 });
  const nested = iommu.createAddressSpace({ parent: root });
  nested.map({ iova: 0x4000_0000, length: 0x4000 }, { iova: 0x1000 });
  iommu.bind('0000:00:04.0', { cookie: 1 }).attach(nested);
  iommu.bind('0000:00:05.0', { cookie: 2 }).attach(root);
  const svg = drawSvg([modelOf(iommu.describe())]);
  iommu.close();
  return svg;
}

test('boxes have the colours of their kinds, links can be seen, and text is inked', () => {
  const svg = scene();
  const { page, boxes, links, texts } = readPicture(svg);
  const picture = render(svg);
  expect([picture.width, picture.height]).toEqual([page.right, page.bottom]);
  const background = picture.at(1, 1);
  const fills = new Map<string, Set<string>>();
  for (const { kind, right, bottom } of boxes)
    fills.set(kind, (fills.get(kind) ?? new Set()).add(picture.at(right - 5, bottom - 5)));
  // One colour each, of which no two are the same, nor any the page's.
  const used = [...fills.values()].map((set) => [...set]);
  expect(used.every(({ length }) => length === 1)).toBe(true);
  expect(new Set([background, ...used.flat()]).size).toBe(fills.size + 1);
  expect(boxes).toHaveLength(5);
  for (const { points } of links) {
    const { x, y } = points[Math.floor(points.length / 2)];
    const around = picture.colours({ left: x - 2, top: y - 2, right: x + 2, bottom: y + 2 });
    expect(around.size).toBeGreaterThan(1);
  }
  if (hasFonts) for (const text of texts) expect(picture.colours(text).size).toBeGreaterThan(2);
});
