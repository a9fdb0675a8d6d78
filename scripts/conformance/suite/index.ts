/** The fixed sequences: what every kernel is asked each time. */
import type { Sequence } from '../program';
import { compatibility } from './compat';
import { mockSemantics } from './mock';
import { refusals } from './refusals';
import { semantics } from './semantics';
import { sweeps } from './sweeps';
import { vfioSemantics } from './vfio';
import { viommuSemantics } from './viommu';
import { possible } from './world';

/** Without those that need an ioctl of `excluded`. */
export function suite(excluded: readonly string[]): Sequence[] {
  const kinds = [semantics, mockSemantics, viommuSemantics, vfioSemantics, compatibility, refusals];
  const all = [...kinds.flat(), ...sweeps(excluded)];
  return all.filter((sequence) => possible(sequence, excluded));
}
