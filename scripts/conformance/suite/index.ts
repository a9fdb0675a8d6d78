/** The fixed sequences: what every kernel is asked each time. */
import type { Sequence } from '../program';
import { mockSemantics } from './mock';
import { semantics } from './semantics';
import { sweeps } from './sweeps';
import { viommuSemantics } from './viommu';
import { possible } from './world';

/** Without those that need an ioctl of `excluded`. */
export function suite(excluded: readonly string[]): Sequence[] {
  const all = [...semantics, ...mockSemantics, ...viommuSemantics, ...sweeps(excluded)];
  return all.filter((sequence) => possible(sequence, excluded));
}
