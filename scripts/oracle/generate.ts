// Random scenes. The mode, the seed and the number of the scene say all.
import { Random } from '../conformance/random';
import { Builder } from './builder';
import * as at from './scene';
import { staleScene } from './stale';

/** Accesses of a scene whose tables may be broken. */
const ACCESSES = 24;
/** The same where what leads to the tables is broken: mostly they all meet the same fault. */
const FEW = 6;

export function randomScene(mode: at.Mode, seed: number, index: number): at.Scene {
  const random = new Random(seed, index);
  const kind = random.weighted([
    ['broken', 6],
    ['cached', 1],
    ['stale', 2],
  ]);
  if (kind === 'stale') return staleScene(random, mode);
  return kind === 'broken' ? brokenScene(random, mode) : cachedScene(random, mode);
}

/** Anything in the tables; nothing is cached from one access to the next. */
function brokenScene(random: Random, mode: at.Mode): at.Scene {
  const builder = new Builder(random, mode, { broken: true, large: true });
  const isBroken = random.oneIn(2);
  const steps: at.Step[] = [];
  for (let i = 0; i < (isBroken ? FEW : ACCESSES); i++) {
    steps.push({ kind: 'access', address: builder.address(), write: random.oneIn(2) }, { kind: 'drop' });
  }
  let root = at.rootAddress(mode);
  if (isBroken) breakStructures(builder);
  if (random.oneIn(60)) root += 0x4000_0000;
  return { mode, root, queue: true, words: at.withoutZeros(builder.words), steps };
}

/** Sane tables, whose translations stay cached: what is permitted may change from one access to the next. */
function cachedScene(random: Random, mode: at.Mode): at.Scene {
  const builder = new Builder(random, mode, { broken: false, large: true });
  const pool = at.distinct(Array.from({ length: 8 }, () => builder.address()));
  const steps: at.Step[] = [];
  for (let i = 0; i < ACCESSES; i++) {
    steps.push({ kind: 'access', address: random.pick(pool), write: random.oneIn(2) });
    if (random.oneIn(12)) steps.push({ kind: 'drop' });
  }
  return { mode, root: at.rootAddress(mode), queue: true, words: at.withoutZeros(builder.words), steps };
}

/** Something wrong, or unusual, in what leads to the tables. */
function breakStructures({ words, random, mode }: Builder): void {
  const { at: context, bytes } = at.contextEntry(mode);
  const entries = [at.ROOT, at.ROOT + 8];
  for (let word = context; word < context + bytes; word += 8) entries.push(word);
  if (mode !== 'legacy') {
    entries.push(at.DIRECTORY);
    for (let word = at.PASIDS; word < at.PASIDS + 64; word += 8) entries.push(word);
  }
  const main = mode === 'legacy' ? context : at.PASIDS;
  const change = (word: number, with_: (value: bigint) => bigint): unknown =>
    words.set(word, with_(words.get(word) ?? 0n));
  const replace = (word: number, high: number, low: number): unknown => {
    const mask = ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
    return change(word, (value) => (value & ~mask) | ((BigInt(random.bits() % 512) << BigInt(low)) & mask));
  };
  for (let times = random.below(2); times >= 0; times--) {
    // A flipped pointer leads to empty memory or none: what two structures share would be two things at once.
    const bits = Array.from({ length: 80 }, (_, i) => (i < 36 ? i % 12 : i - 16));
    const flip = (): unknown =>
      change(random.pick(entries), (value) => value ^ (1n << BigInt(random.pick(bits))));
    const what = random.weighted([
      ['flip', 9],
      ['width', 3],
      ['type', 5],
      ['pointer', 2],
      ['silent', 3],
      ['empty', 2],
    ]);
    if (what === 'flip') flip();
    else if (what === 'width')
      replace(
        mode === 'legacy' ? context + 8 : at.PASIDS,
        mode === 'legacy' ? 2 : 4,
        mode === 'legacy' ? 0 : 2,
      );
    else if (what === 'type') replace(main, mode === 'legacy' ? 3 : 8, mode === 'legacy' ? 2 : 6);
    else if (what === 'pointer')
      change(random.pick(entries), (value) => (value & 0xfffn) | BigInt(at.NOWHERE));
    else if (what === 'silent') change(random.pick([context, at.PASIDS]), (value) => value | 2n);
    else words.delete(random.oneIn(2) ? main : random.pick(entries));
  }
}
