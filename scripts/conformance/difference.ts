/** Where two kernels did not do the same. */
import { errnoName } from '../../lib/uapi';
import { fieldAt } from './layouts';
import { nameOf, REFUSED, type Call, type CallRecord, type Change, type Sequence } from './program';

/** The first call of a sequence that the kernels answered differently. */
export interface Difference {
  /** Index in the sequence. */
  readonly at: number;
  /** The name that calls are counted under. */
  readonly name: string;
  /** What differs, the same for all sequences that show the same thing. */
  readonly signature: string;
}

export function resultName(result: number): string {
  if (result === REFUSED) return 'not made';
  return result < 0 ? errnoName(result) : String(result);
}

function areaOf(call: Call, { area, offset }: Change): string {
  if (area === 'argument' && call.op === 'ioctl' && typeof call.request === 'string')
    return fieldAt(call.request, offset);
  return area;
}

/** Names of the areas in which the changes differ. */
function differingAreas(call: Call, left: CallRecord, right: CallRecord): string {
  const key = (change: Change) => JSON.stringify(change);
  const [inLeft, inRight] = [new Set(left.changes.map(key)), new Set(right.changes.map(key))];
  const different = [
    ...left.changes.filter((change) => !inRight.has(key(change))),
    ...right.changes.filter((change) => !inLeft.has(key(change))),
  ];
  return [...new Set(different.map((change) => areaOf(call, change)))].sort().join(', ');
}

/** Name of the ioctl, and of a test command's op. */
function title(call: Call): string {
  const name = nameOf(call);
  if (call.op !== 'ioctl') return name;
  return name === 'IOMMU_TEST_CMD' ? `${name} op ${JSON.stringify(call.fields.op ?? 0)}` : name;
}

export function firstDifference(
  sequence: Sequence,
  simulated: readonly CallRecord[],
  linux: readonly CallRecord[],
): Difference | undefined {
  for (const [at, call] of sequence.calls.entries()) {
    const [left, right] = [simulated[at], linux[at]];
    const name = nameOf(call);
    if (left.result !== right.result) {
      const results = `simulated ${resultName(left.result)}, Linux ${resultName(right.result)}`;
      return { at, name, signature: `${title(call)}: ${results}` };
    }
    if (JSON.stringify(left.changes) !== JSON.stringify(right.changes)) {
      const areas = differingAreas(call, left, right);
      return { at, name, signature: `${title(call)} (${resultName(left.result)}): bytes of ${areas}` };
    }
  }
  return undefined;
}
