/**
 * Where everything goes: boxes in columns, ordered so that few links cross; a link over several columns has a place of its
 * own in each, so that it passes no box. Pixels.
 */
import type { Box, Model } from './model';

/** Of the font, which is monospaced. */
export const FONT_SIZE = 12;
export const CHARACTER = 7.3;
export const LINE = 17;
export const PADDING = 10;
export const TITLE = 24;
const GAP = 18;
const GUTTER = 80;
/** Around the members of a group; the label is on top. */
const FRAME_TOP = 24;
const FRAME_SIDE = 10;
/** Height of a link's place in a column that it passes. */
const LANE = 12;
const HEADING = 28;
const SWEEPS = 6;

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface PlacedBox extends Rectangle {
  readonly box: Box;
}

export interface PlacedLink {
  readonly from: Box;
  readonly to: Box;
  /** From the row to the title, over the places in between: pairs of a column's left and right edge. */
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface Frame extends Rectangle {
  readonly label: string;
}

export interface Layout {
  readonly boxes: readonly PlacedBox[];
  readonly links: readonly PlacedLink[];
  readonly frames: readonly Frame[];
  readonly headings: readonly { readonly x: number; readonly y: number; readonly text: string }[];
  readonly width: number;
  readonly height: number;
}

/** A box, or the place of a link that passes. */
interface Cell {
  readonly box?: Box;
  readonly column: number;
  readonly width: number;
  readonly height: number;
  readonly before: Neighbour[];
  readonly after: Neighbour[];
  y: number;
}

interface Neighbour {
  readonly cell: Cell;
  /** Where a link meets it: 0 at its top, below 1. */
  readonly at: number;
}

interface Chain {
  readonly from: Cell;
  readonly row: number;
  readonly lanes: readonly Cell[];
  readonly to: Cell;
}

export function layOut(model: Model): Layout {
  const cells = new Map(model.boxes.map((box) => [box.id, boxCell(box)]));
  const chains = chainsOf(cells);
  const all = [...cells.values(), ...chains.flatMap(({ lanes }) => lanes)];
  const columns = ordered(
    Array.from({ length: 1 + Math.max(0, ...all.map(({ column }) => column)) }, (_, column) =>
      all.filter((cell) => cell.column === column),
    ),
  );
  const height = place(columns);
  const widths = columns.map((cells, i) => widest(cells, model.headings.get(i)));
  const left = edges(widths);
  const at = (cell: Cell) => left[cell.column];
  const boxes = [...cells.values()].map((cell): PlacedBox => {
    const { box, y, height, column } = cell as Cell & { box: Box };
    return { box, x: at(cell), y, width: widths[column], height };
  });
  return {
    boxes,
    links: chains.map((chain) => linkOf(chain, left, widths)),
    frames: framesOf(boxes),
    headings: [...model.headings]
      .filter(([column]) => model.boxes.some((box) => box.column === column))
      .map(([column, text]) => ({ x: left[column], y: FONT_SIZE, text })),
    width: (left[columns.length - 1] ?? 0) + (widths[columns.length - 1] ?? 0),
    height,
  };
}

function boxCell(box: Box): Cell {
  const characters = Math.max(box.title.length, ...box.rows.map(({ text }) => text.length));
  const width = Math.ceil(characters * CHARACTER) + 2 * PADDING;
  const height = TITLE + box.rows.length * LINE + PADDING;
  return { box, column: box.column, width, height, before: [], after: [], y: 0 };
}

/** The links, each with the places that it takes on its way. */
function chainsOf(cells: ReadonlyMap<string, Cell>): Chain[] {
  return [...cells.values()].flatMap((from) =>
    from.box!.rows.flatMap(({ to: id }, row) => {
      const to = id === undefined ? undefined : cells.get(id);
      if (!to) return [];
      const lanes = Array.from({ length: Math.max(0, to.column - from.column - 1) }, (_, i) =>
        lane(from.column + 1 + i),
      );
      const way = [from, ...lanes, to];
      way.slice(1).forEach((cell, i) => {
        way[i].after.push({ cell, at: 0 });
        cell.before.push({ cell: way[i], at: i === 0 ? row / from.box!.rows.length : 0 });
      });
      return [{ from, row, lanes, to }];
    }),
  );
}

function lane(column: number): Cell {
  return { column, width: 0, height: LANE, before: [], after: [], y: 0 };
}

/** The order in which fewest links cross, of those that sorting columns by their neighbours, to and fro, comes by. */
function ordered(first: readonly Cell[][]): Cell[][] {
  const columns = [...first];
  let best = { columns: [...columns], crossings: crossings(columns) };
  for (let sweep = 0; sweep < SWEEPS && best.crossings > 0; sweep++) {
    const forwards = sweep % 2 === 0;
    const order = forwards ? [...columns.keys()] : [...columns.keys()].reverse();
    for (const column of order) columns[column] = sorted(columns, column, forwards);
    const count = crossings(columns);
    if (count < best.crossings) best = { columns: [...columns], crossings: count };
  }
  return best.columns;
}

/** How many pairs of links cross between neighbouring columns. */
function crossings(columns: readonly Cell[][]): number {
  const place = new Map(columns.flatMap((cells) => cells.map((cell, i) => [cell, i] as const)));
  return columns
    .map((cells) => {
      const links = cells.flatMap((to) =>
        to.before.map(({ cell, at }) => ({ start: place.get(cell)! + at, end: place.get(to)! })),
      );
      const crossing = links.map((one) =>
        links.filter((other) => one.start < other.start && one.end > other.end),
      );
      return crossing.reduce((sum, { length }) => sum + length, 0);
    })
    .reduce((sum, count) => sum + count, 0);
}

/** By the middle of their neighbours' places in the column before or after; members of a group stay together. */
function sorted(columns: readonly Cell[][], column: number, forwards: boolean): Cell[] {
  const neighbours = columns[forwards ? column - 1 : column + 1] ?? [];
  const places = new Map(neighbours.map((cell, place) => [cell, place]));
  const own = new Map(columns[column].map((cell, place) => [cell, place]));
  const middle = (cell: Cell) => {
    const found = (forwards ? cell.before : cell.after).map((each) => places.get(each.cell)! + each.at);
    return found.length > 0 ? mean(found) : undefined;
  };
  const key = (cell: Cell) => {
    const group = cell.box?.group;
    if (group === undefined) return middle(cell) ?? own.get(cell)!;
    const members = columns[column].filter(({ box }) => box?.group === group);
    const middles = members.map(middle).filter((each) => each !== undefined);
    return middles.length > 0 ? mean(middles) : mean(members.map((member) => own.get(member)!));
  };
  const keys = new Map(columns[column].map((cell) => [cell, key(cell)]));
  return [...columns[column]].sort(
    (a, b) =>
      keys.get(a)! - keys.get(b)! || (a.box?.group ?? -1) - (b.box?.group ?? -1) || own.get(a)! - own.get(b)!,
  );
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
}

/** Stacks the columns, each in the middle of the tallest; its height. */
function place(columns: readonly Cell[][]): number {
  const heights = columns.map((cells) => {
    let y = 0;
    cells.forEach((cell, i) => {
      const group = cell.box?.group;
      const previous = cells[i - 1]?.box?.group;
      if (i > 0) y += GAP;
      if (group !== undefined && (i === 0 || previous !== group)) y += FRAME_TOP;
      cell.y = y;
      y += cell.height;
    });
    return y + (cells[cells.length - 1]?.box?.group === undefined ? 0 : FRAME_SIDE);
  });
  const tallest = Math.max(0, ...heights);
  columns.forEach((cells, i) => {
    for (const cell of cells) cell.y += HEADING + Math.round((tallest - heights[i]) / 2);
  });
  return HEADING + tallest;
}

function widest(cells: readonly Cell[], heading = ''): number {
  return Math.max(Math.ceil(heading.length * CHARACTER), ...cells.map(({ width }) => width));
}

/** The left edges of the columns. */
function edges(widths: readonly number[]): number[] {
  let x = FRAME_SIDE;
  return widths.map((width) => {
    const left = x;
    x += width + GUTTER;
    return left;
  });
}

function linkOf(
  { from, row, lanes, to }: Chain,
  left: readonly number[],
  widths: readonly number[],
): PlacedLink {
  const rowY = from.y + TITLE + row * LINE + LINE / 2;
  const passing = lanes.flatMap((cell) => {
    const y = cell.y + LANE / 2;
    const x = left[cell.column];
    return [
      { x, y },
      { x: x + widths[cell.column], y },
    ];
  });
  const start = { x: left[from.column] + widths[from.column], y: rowY };
  const end = { x: left[to.column], y: to.y + TITLE / 2 };
  return { from: from.box!, to: to.box!, points: [start, ...passing, end] };
}

function framesOf(boxes: readonly PlacedBox[]): Frame[] {
  const groups = [...new Set(boxes.map(({ box }) => box.group))].filter((group) => group !== undefined);
  return groups.map((group) => {
    const members = boxes.filter(({ box }) => box.group === group);
    const top = Math.min(...members.map(({ y }) => y)) - FRAME_TOP;
    const bottom = Math.max(...members.map(({ y, height }) => y + height)) + FRAME_SIDE;
    const width = Math.max(...members.map((member) => member.width)) + 2 * FRAME_SIDE;
    return { label: `group ${group}`, x: members[0].x - FRAME_SIDE, y: top, width, height: bottom - top };
  });
}
