/** An SVG as a tree, read by Python's XML parser: not by anything of ours. */
import { spawnSync } from 'node:child_process';

export interface Element {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly text: string;
  readonly children: readonly Element[];
}

const PROGRAM = `
import json, sys, xml.etree.ElementTree as tree
def plain(element):
    return {"tag": element.tag.split("}")[1], "attributes": element.attrib, "text": element.text or "",
            "children": [plain(child) for child in element]}
json.dump(plain(tree.fromstring(sys.stdin.buffer.read())), sys.stdout)
`;

export function parseSvg(svg: string): Element {
  const { status, stdout, stderr } = spawnSync('python3', ['-c', PROGRAM], {
    input: svg,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) throw new Error(`python3: ${stderr}`);
  return JSON.parse(stdout) as Element;
}

export interface Rectangle {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

export interface Text extends Rectangle {
  readonly text: string;
}

/** A group that has a rectangle: what is written in it, and where. */
export interface Shown extends Rectangle {
  readonly kind: string;
  readonly id: string;
  readonly texts: readonly Text[];
}

export interface Link {
  readonly from: string;
  readonly to: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface Picture {
  readonly page: Rectangle;
  readonly boxes: readonly Shown[];
  readonly frames: readonly Shown[];
  readonly links: readonly Link[];
  /** All that is written, wherever. */
  readonly texts: readonly Text[];
}

/** Of DejaVu Sans Mono, in its size. */
const ADVANCE = 0.602;

export function readPicture(svg: string): Picture {
  const root = parseSvg(svg);
  const picture = { boxes: [] as Shown[], frames: [] as Shown[], links: [] as Link[], texts: [] as Text[] };
  const visit = (element: Element, x: number, y: number): void => {
    const { tag, attributes, children } = element;
    const [dx, dy] = /translate\(([\d.]+) ([\d.]+)\)/.exec(attributes['transform'] ?? '')?.slice(1) ?? [0, 0];
    const [left, top] = [x + Number(dx), y + Number(dy)];
    const kind = attributes['class'] ?? '';
    if (tag === 'text') picture.texts.push(readText(element, left, top));
    if (tag === 'path' && kind === 'link') picture.links.push(readLink(element, left, top));
    if (kind.startsWith('box')) picture.boxes.push(readShown(element, left, top));
    if (kind === 'frame') picture.frames.push(readShown(element, left, top));
    for (const child of children) visit(child, left, top);
  };
  visit(root, 0, 0);
  const size = (name: string) => Number(root.attributes[name]);
  return { ...picture, page: { left: 0, top: 0, right: size('width'), bottom: size('height') } };
}

function readShown({ attributes, children }: Element, x: number, y: number): Shown {
  const rect = children.find(({ tag }) => tag === 'rect')!.attributes;
  const [left, top] = [x + Number(rect['x']), y + Number(rect['y'])];
  return {
    ...{ left, top, right: left + Number(rect['width']), bottom: top + Number(rect['height']) },
    kind: attributes['class'],
    id: attributes['data-id'] ?? '',
    texts: children.filter(({ tag }) => tag === 'text').map((text) => readText(text, x, y)),
  };
}

function readText({ attributes, text }: Element, x: number, y: number): Text {
  const size = Number(attributes['font-size'] ?? 12);
  const [left, baseline] = [x + Number(attributes['x'] ?? 0), y + Number(attributes['y'])];
  return {
    text,
    left,
    right: left + text.length * size * ADVANCE,
    top: baseline - size,
    bottom: baseline + size / 4,
  };
}

const SAMPLES = 16;

/** Points along a path of M, C and L. */
function readLink({ attributes }: Element, x: number, y: number): Link {
  const points: { x: number; y: number }[] = [];
  for (const [, command, numbers] of attributes['d'].matchAll(/([MCL])([^MCL]*)/g)) {
    const values = numbers.trim().split(/\s+/).map(Number);
    const given = values.flatMap((value, i) => (i % 2 ? [] : [{ x: x + value, y: y + values[i + 1] }]));
    if (command === 'M') points.push(...given);
    else points.push(...sample([points[points.length - 1], ...given]));
  }
  return { from: attributes['data-from'], to: attributes['data-to'], points };
}

/** A Bezier curve of any degree, without its first point. */
function sample(control: readonly { x: number; y: number }[]): { x: number; y: number }[] {
  return Array.from({ length: SAMPLES }, (_, i) => {
    let level = [...control];
    const t = (i + 1) / SAMPLES;
    while (level.length > 1)
      level = level.slice(1).map((to, at) => ({
        x: level[at].x + t * (to.x - level[at].x),
        y: level[at].y + t * (to.y - level[at].y),
      }));
    return level[0];
  });
}
