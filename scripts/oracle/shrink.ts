// Makes a scene that shows a difference smaller: fewer steps, fewer words, as long as it still shows one.
import type { Comparison } from './compare';
import type { Scene, Step } from './scene';

/** Most scenes that are tried. */
const TRIES = 600;

export async function shrink(comparison: Pick<Comparison, 'run'>, scene: Scene): Promise<Scene> {
  let tries = 0;
  const differs = async (candidate: Scene): Promise<boolean> => {
    tries++;
    return (await comparison.run(candidate)).differences.length > 0;
  };
  let best = scene;
  for (
    let size = Math.ceil(best.steps.length / 2);
    size >= 1 && tries < TRIES;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let from = 0; from < best.steps.length && tries < TRIES;) {
      const steps: Step[] = best.steps.filter((_, i) => i < from || i >= from + size);
      const candidate = { ...best, steps };
      if (steps.length > 0 && (await differs(candidate))) best = candidate;
      else from += size;
    }
  }
  for (const at of best.words.keys()) {
    if (tries >= TRIES) break;
    const words = new Map(best.words);
    words.delete(at);
    const candidate = { ...best, words };
    if (await differs(candidate)) best = candidate;
  }
  return best;
}
