/** Makes a sequence shorter and simpler as long as it still shows what it shows. */
import type { Call, IoctlCall, Sequence, Value } from './program';

/** Which of these still show it. Asked for several at once, because asking may be slow. */
export type Shows = (candidates: readonly Sequence[]) => Promise<boolean[]>;

/** Labels of the calls that a call refers to. */
function references(call: Call): number[] {
  const found: number[] = [];
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    if ('of' in value && typeof value.of === 'number') found.push(value.of);
    for (const [name, inner] of Object.entries(value)) {
      if ((name === 'fd' || name === 'mapping') && typeof inner === 'number') found.push(inner);
      visit(inner);
    }
  };
  visit(call);
  return found;
}

/** The last call and what it needs, directly or not. */
function needed(sequence: Sequence): Sequence {
  const last = sequence.calls.at(-1);
  const labels = new Set(last ? [last.label] : []);
  for (const call of sequence.calls.toReversed())
    if (labels.has(call.label)) for (const label of references(call)) labels.add(label);
  return { ...sequence, calls: sequence.calls.filter(({ label }) => labels.has(label)) };
}

/** All sequences that lack `size` calls in a row; the last call stays. */
function without(sequence: Sequence, size: number): Sequence[] {
  const { calls } = sequence;
  const candidates: Sequence[] = [];
  for (let start = 0; start < calls.length - 1; start += size) {
    const end = Math.min(start + size, calls.length - 1);
    candidates.push({ ...sequence, calls: calls.toSpliced(start, end - start) });
  }
  return candidates;
}

function withField(call: IoctlCall & Call, name: string, value: Value | undefined): Call {
  const fields = { ...call.fields };
  if (value === undefined) delete fields[name];
  else fields[name] = value;
  return { ...call, fields };
}

function simplerValues(value: Value): (Value | undefined)[] {
  if (typeof value !== 'object')
    return value === 1 || value === 0x1000 ? [undefined] : [undefined, 1, 0x1000];
  if ('at' in value) return value.offset === 0 ? [undefined] : [undefined, { at: value.at, offset: 0 }];
  return 'of' in value && value.plus ? [undefined, { of: value.of, field: value.field }] : [undefined];
}

function simplerCalls(call: Call): Call[] {
  if (call.op !== 'ioctl') return [];
  const candidates: Call[] = [];
  for (const [name, value] of Object.entries(call.fields))
    for (const simpler of simplerValues(value)) candidates.push(withField(call, name, simpler));
  if (call.extra) candidates.push((({ extra: _extra, ...rest }) => rest)(call));
  if (call.scratch) candidates.push((({ scratch: _scratch, ...rest }) => rest)(call));
  return candidates;
}

/** Every sequence with one call made simpler. */
function simpler(sequence: Sequence): Sequence[] {
  return sequence.calls.flatMap((call, i) =>
    simplerCalls(call).map((changed) => ({ ...sequence, calls: sequence.calls.with(i, changed) })),
  );
}

/** How much there is to read. */
function weight({ calls }: Sequence): number {
  return calls.reduce((sum, call) => sum + 1000 + JSON.stringify(call).length, 0);
}

/** The simplest of the candidates that shows it, if any is simpler than `sequence`. */
async function best(
  sequence: Sequence,
  candidates: readonly Sequence[],
  shows: Shows,
): Promise<Sequence | undefined> {
  const lighter = candidates.filter((candidate) => weight(candidate) < weight(sequence));
  if (lighter.length === 0) return undefined;
  const good = await shows(lighter);
  const remaining = lighter.filter((_, i) => good[i]);
  return remaining.toSorted((a, b) => weight(a) - weight(b))[0];
}

async function shorten(sequence: Sequence, shows: Shows): Promise<Sequence> {
  let shortest = (await best(sequence, [needed(sequence)], shows)) ?? sequence;
  for (let size = shortest.calls.length >> 1; size >= 1;) {
    const found = await best(shortest, without(shortest, size), shows);
    if (found) shortest = found;
    size = found ? Math.min(size, shortest.calls.length >> 1) : size >> 1;
  }
  return shortest;
}

/**
 * A sequence from which no single call and no field can be taken without losing what it shows. `sequence` itself
 * shows it, with its last call.
 */
export async function shrink(sequence: Sequence, shows: Shows): Promise<Sequence> {
  let shortest = await shorten(sequence, shows);
  for (;;) {
    const found = await best(shortest, simpler(shortest), shows);
    if (!found) return shortest;
    // What a field referred to may not be needed any more.
    shortest = await shorten(found, shows);
  }
}
