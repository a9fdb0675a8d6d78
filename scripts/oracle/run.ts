// Many scenes, and the ones that differ made small.
import { Comparison, type Difference, type SceneResult } from './compare';
import { randomScene } from './generate';
import type { UnitFactory } from './ours';
import { QemuUnit } from './qemu-unit';
import { Quirks, type QuirkName } from './quirks';
import { sceneText } from './report';
import type { Mode } from './scene';
import { shrink } from './shrink';

/** Scenes that are on their way at once: our unit works on one while QEMU works on another. */
const AT_ONCE = 3;
const SHOWN = 3;

export interface OracleRun {
  readonly mode: Mode;
  readonly seed: number;
  readonly accesses: number;
  readonly without: readonly QuirkName[];
  /** QEMU's program. */
  readonly program: string;
  /** The unit that is compared, where it is another than ours. */
  readonly create?: UnitFactory;
  /** Ends the run at the first difference. */
  readonly stopAtFirst?: boolean;
  /** Differences that are made small and printed (default 3). */
  readonly shown?: number;
}

export interface OracleResult {
  readonly accesses: number;
  readonly faults: number;
  /** Scenes that differ. */
  readonly mismatches: number;
  readonly quirksUsed: readonly QuirkName[];
  /** Dumps of the first ones. */
  readonly dumps: readonly string[];
}

export async function runOracle(run: OracleRun): Promise<OracleResult> {
  const { mode, seed, without, create } = run;
  const quirks = new Quirks(without);
  const qemu = await QemuUnit.start(run.program, mode);
  try {
    const comparison = new Comparison(qemu, quirks, create);
    let accesses = 0;
    let faults = 0;
    const different: { index: number; differences: readonly Difference[] }[] = [];
    const pending: { index: number; result: Promise<SceneResult> }[] = [];
    const settle = async (): Promise<void> => {
      const { index, result } = pending.shift()!;
      const scene = await result;
      accesses += scene.accesses;
      faults += scene.faults;
      if (scene.differences.length > 0) different.push({ index, differences: scene.differences });
    };
    for (
      let index = 0;
      accesses < run.accesses && !(run.stopAtFirst === true && different.length > 0);
      index++
    ) {
      const result = comparison.run(randomScene(mode, seed, index));
      // Should QEMU end, the first that is waited for says so.
      result.catch(() => {});
      pending.push({ index, result });
      if (pending.length >= AT_ONCE) await settle();
    }
    while (pending.length > 0) await settle();
    const quirksUsed = [...quirks.used].sort();
    const dumps: string[] = [];
    for (const each of different.slice(0, run.shown ?? SHOWN))
      dumps.push(await dump(comparison, run, each.index, each.differences));
    return { accesses, faults, mismatches: different.length, quirksUsed, dumps };
  } finally {
    qemu.close();
  }
}

async function dump(
  comparison: Comparison,
  { mode, seed }: OracleRun,
  index: number,
  seen: readonly Difference[],
): Promise<string> {
  const whole = randomScene(mode, seed, index);
  const scene = await shrink(comparison, whole);
  const { differences } = await comparison.run(scene);
  const title = `scene ${index} of seed ${seed}`;
  if (differences.length > 0) return `${title}:\n${sceneText(scene, differences)}`;
  return `${title}, which differs only after the scenes before it:\n${sceneText(whole, seen)}`;
}
