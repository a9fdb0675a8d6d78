/**
 * What a level-1 entry has to be like for a request to go through without further ado, made ready once for both stages.
 * Intel VT-d Architecture Specification rev. 4.1, sections 9.8 "First-Stage Paging Entries" and 9.9 "Second-Stage Paging Entries".
 *
 * Where the paging-structure caches know the table of an address, that is the usual case, and one look at the entry decides it.
 * Whatever else an entry says, faults and flags that have to be set included, is for the walk.
 */
import { FirstStage, FS_D, FS_P } from './first-stage';
import { STRUCTURES_FIRST_STAGE, STRUCTURES_SECOND_STAGE } from './paging-structure-cache';
import { SecondStage, SS_A, SS_D, SS_R, SS_SNP, SS_W } from './second-stage';
import { KINDS_ALL, KINDS_WRITE } from './walk';

export interface LeafRules {
  /** STRUCTURES_*. */
  readonly stage: number;
  /** Low word: flags that have to be set, and bits that must not be. */
  readonly needed: number;
  readonly reservedLow: number;
  readonly reservedHigh: number;
  /** Low word: without this flag, if it is one, no writes. */
  readonly dirty: number;
  /** Low word: the flag that forces snooping, or 0. */
  readonly snoop: number;
  /** Low word of what all entries have in common: the lower of two permission bits. */
  readonly permissionShift: number;
  /** By those two bits, and XD of any entry as a third: the kinds of requests that are allowed. */
  readonly allowed: Int32Array;
}

/** Of a first stage that is not nested. */
export function firstStageLeafRules(stage: FirstStage): LeafRules {
  const allowed = new Int32Array(8);
  for (let i = 0; i < 8; i++) {
    let denied = (i & 2) === 0 ? stage.supervisorDenies : stage.userDenies;
    if ((i & 1) === 0) denied |= stage.readOnlyDenies;
    if ((i & 4) !== 0) denied |= stage.noExecuteDenies;
    allowed[i] = KINDS_ALL & ~denied;
  }
  return {
    stage: STRUCTURES_FIRST_STAGE,
    needed: FS_P | stage.accessed,
    reservedLow: stage.reservedLow[2 + 1]!,
    reservedHigh: stage.reservedHigh,
    dirty: FS_D,
    snoop: 0,
    // R/W and U/S.
    permissionShift: 1,
    allowed,
  };
}

export function secondStageLeafRules(stage: SecondStage): LeafRules {
  const allowed = new Int32Array(8);
  for (let i = 0; i < 8; i++) {
    allowed[i] = ((i & SS_R) !== 0 ? KINDS_ALL & ~KINDS_WRITE : 0) | ((i & SS_W) !== 0 ? KINDS_WRITE : 0);
  }
  return {
    stage: STRUCTURES_SECOND_STAGE,
    needed: stage.accessed,
    reservedLow: stage.reservedLow[2 + 1]!,
    reservedHigh: stage.reservedHigh[1]!,
    dirty: (stage.accessed & SS_A) !== 0 ? SS_D : 0,
    snoop: SS_SNP,
    permissionShift: 0,
    allowed,
  };
}
