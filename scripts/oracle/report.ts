// A scene and its differences as text: what software wrote where, and then did.
import type { Difference } from './compare';
import * as at from './scene';

const hex = (value: bigint | number, digits = 1): string => `0x${value.toString(16).padStart(digits, '0')}`;

function place(address: number): string {
  const context = (page: string, size: number): string =>
    `${page} entry ${hex(Math.floor((address % at.PAGE) / size))}, word ${(address % size) / 8}`;
  switch (at.pageOf(address)) {
    case at.ROOT:
      return context('root', 16);
    case at.DIRECTORY:
      return context('PASID directory', 8);
    case at.PASIDS:
      return context('PASID table', 64);
    default:
      return address >= at.TABLES ? `entry ${hex((address % at.PAGE) / 8)}` : '';
  }
}

function contextPlace(mode: at.Mode, address: number): string {
  const { at: entry, bytes } = at.contextEntry(mode);
  const isIn = address >= entry && address < entry + bytes;
  return isIn ? `context entry, word ${(address - entry) / 8}` : place(address);
}

function stepText(step: at.Step): string {
  switch (step.kind) {
    case 'access':
      return `${step.write ? 'write' : 'read'} of ${at.ACCESS_BYTES} bytes at ${hex(step.address)}`;
    case 'poke':
      return `${hex(step.at)} := ${hex(step.value, 16)}`;
    case 'invalidate':
      return `descriptor ${step.words.map((word) => hex(word >>> 0, 8)).join(' ')}`;
    case 'command':
      return `IVA_REG = ${hex(step.address)}, IOTLB_REG 63:32 = ${hex(step.high)}`;
    case 'drop':
      return 'SRTP';
  }
}

/** The tables, the steps, and after each what differs. */
export function sceneText(scene: at.Scene, differences: readonly Difference[]): string {
  const lines = [`mode ${scene.mode}, RTADDR_REG ${hex(scene.root)}`];
  for (const [address, value] of [...scene.words].sort(([a], [b]) => a - b)) {
    lines.push(`  ${hex(address, 9)}  ${hex(value, 16)}  ${contextPlace(scene.mode, address)}`);
  }
  const after = (step: number): string[] =>
    differences.filter((each) => each.step === step).map(({ what }) => `     differs: ${what}`);
  scene.steps.forEach((step, i) => lines.push(`${String(i).padStart(4)} ${stepText(step)}`, ...after(i)));
  lines.push(...after(scene.steps.length));
  return lines.join('\n');
}
