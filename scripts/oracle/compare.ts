// One scene on both units, and what differs.
import type { VtdCapabilities } from '../../lib/sim/vtd';
import { Ours, type Expectation, type UnitFactory } from './ours';
import { QemuUnit, type SceneObservation } from './qemu-unit';
import { Quirks } from './quirks';
import type { Scene } from './scene';

export interface Difference {
  /** The step after which it shows; the number of steps where it is in the tables at the end. */
  readonly step: number;
  readonly what: string;
}

export interface SceneResult {
  readonly differences: readonly Difference[];
  readonly accesses: number;
  readonly faults: number;
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

function differenceOf(step: number, expected: Expectation, observed: Expectation): Difference[] {
  const differences: Difference[] = [];
  const compare = (name: string, ours: bigint | number, qemu: bigint | number): void => {
    if (ours !== qemu) differences.push({ step, what: `${name}: ours ${hex(ours)}, QEMU ${hex(qemu)}` });
  };
  compare('FRCD_REG 63:0', expected.record.low, observed.record.low);
  compare('FRCD_REG 127:64', expected.record.high, observed.record.high);
  compare('FSTS_REG', expected.status, observed.status);
  compare('IQH_REG', expected.head, observed.head);
  for (const [at, value] of expected.stored) compare(`data at ${hex(at)}`, value, observed.stored.get(at)!);
  return differences;
}

function pageDifferences(step: number, page: number, ours: Buffer, qemu: Buffer): Difference[] {
  if (ours.equals(qemu)) return [];
  const differences: Difference[] = [];
  for (let offset = 0; offset < ours.length; offset += 8) {
    const [mine, theirs] = [ours.readBigUInt64LE(offset), qemu.readBigUInt64LE(offset)];
    if (mine === theirs) continue;
    differences.push({ step, what: `word at ${hex(page + offset)}: ours ${hex(mine)}, QEMU ${hex(theirs)}` });
  }
  return differences;
}

export class Comparison {
  readonly #ours: Ours;

  constructor(
    private readonly qemu: QemuUnit,
    readonly quirks: Quirks,
    create?: UnitFactory,
  ) {
    this.#ours = new Ours(qemu.capabilities, quirks, create);
  }

  get capabilities(): VtdCapabilities {
    return this.qemu.capabilities;
  }

  async run(scene: Scene): Promise<SceneResult> {
    const ours = this.#ours;
    ours.load(scene);
    const expected = scene.steps.map((step) => ours.perform(scene, step));
    const pages = new Map([...ours.dirty].map((page) => [page, ours.page(page)] as const));
    const { buffer } = ours;
    ours.unload();
    const observed = await this.qemu.run(scene, expected, pages.keys());
    return {
      differences: compareScene(expected, pages, buffer, observed),
      accesses: scene.steps.filter(({ kind }) => kind === 'access').length,
      faults: expected.filter(({ record }) => record.high !== 0n).length,
    };
  }
}

function compareScene(
  expected: readonly Expectation[],
  pages: ReadonlyMap<number, Buffer>,
  buffer: bigint,
  observed: SceneObservation,
): Difference[] {
  const differences = expected.flatMap((each, step) => differenceOf(step, each, observed.steps[step]!));
  if (buffer !== observed.buffer) {
    const what = `bytes read: ours ${hex(buffer)}, QEMU ${hex(observed.buffer)}`;
    differences.push({ step: expected.length, what });
  }
  for (const [page, bytes] of pages) {
    differences.push(...pageDifferences(expected.length, page, bytes, observed.pages.get(page)!));
  }
  return differences;
}
