// The table that people read.
import type { Outcome } from './run';

const WIDTHS = [18, 12, 14, 12, 12];

function line(cells: readonly string[]): string {
  const padded = cells.map((cell, i) =>
    i === 0 || i === 2 ? cell.padEnd(WIDTHS[i]) : cell.padStart(WIDTHS[i]),
  );
  return padded.join('  ').trimEnd();
}

/** With as many digits as say something. */
export function number(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en-US') : value.toPrecision(3);
}

export const TABLE_HEAD = line(['Figure', 'Ours', 'Peer', "Peer's", 'Ours ÷ peer']);

/** A line for each peer of a figure. */
export function tableLines(name: string, { ours, peer, ratio, unit }: Outcome): string[] {
  const own = [name, `${number(ours)} ${unit}`];
  const peers = Object.keys(peer);
  if (peers.length === 0) return [line(own)];
  return peers.map((key, i) =>
    line([...(i === 0 ? own : ['', '']), key, `${number(peer[key])} ${unit}`, number(ratio[key])]),
  );
}
