/** Makes a sequence shorter and simpler as long as it still shows what it shows. */
import type { Call, IoctlCall, Sequence, Value } from './program';

/** Which of these still show it. Asked for many at once, because asking may be slow. */
export type Shows = (candidates: readonly Sequence[]) => Promise<boolean[]>;

function without(sequence: Sequence, start: number, count: number): Sequence {
  return { ...sequence, calls: sequence.calls.filter((_, i) => i < start || i >= start + count) };
}

/** All sequences that lack a run of calls, the longest runs first. */
function shorter(sequence: Sequence): Sequence[] {
  const { length } = sequence.calls;
  const candidates: Sequence[] = [];
  for (let size = length - 1; size >= 1; size = Math.floor(size / 2))
    for (let start = 0; start + size <= length; start += Math.max(1, size >> 1))
      candidates.push(without(sequence, start, size));
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

/** Numbers in the fields of a sequence: fewer is simpler. */
function weight({ calls }: Sequence): number {
  return calls.reduce((sum, call) => sum + 1000 + JSON.stringify(call).length, 0);
}

/**
 * The simplest sequence that can be reached by taking out calls and fields, one step at a time. `sequence` itself
 * shows it. At most `rounds` questions are asked.
 */
export async function shrink(sequence: Sequence, shows: Shows, rounds = 60): Promise<Sequence> {
  let best = sequence;
  for (let round = 0; round < rounds; round++) {
    const candidates = [...shorter(best), ...simpler(best)];
    const good = await shows(candidates);
    const remaining = candidates.filter((candidate, i) => good[i] && weight(candidate) < weight(best));
    if (remaining.length === 0) return best;
    best = remaining.reduce((least, each) => (weight(each) < weight(least) ? each : least));
  }
  return best;
}
