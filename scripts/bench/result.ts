// What a trial says.

export interface Measured {
  /** In the figure's unit. */
  readonly value: number;
  /** What was computed on the way: all sides that say must say the same. */
  readonly check?: string;
}

export interface Unavailable {
  /** Why this cannot be measured on this machine, for people. */
  readonly unavailable: string;
}

export type Result = Measured | Unavailable;

/** A trial that should have worked. */
export class TrialError extends Error {
  override name = 'TrialError';
}
