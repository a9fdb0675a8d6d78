/** Linux in the virtual machine, as a peer: one guest for all rounds, and another one where that stops answering. */
import { Guest, StallError } from './guest';
import type { Batch, Peer } from './peer';
import type { CallRecord, Sequence } from './program';
import type { Round } from './rounds';
import type { Setup } from './simulated';

/** Seconds: a round takes some, on a busy machine half a minute. */
const PATIENCE = 240;

export class VmPeer implements Peer {
  readonly name = 'linux';
  #guest: Guest;
  /** Rounds that a guest did not answer, and the next guest did. */
  stalls = 0;

  /** `seconds` until a guest is ended, whatever it does. `patience`: seconds that it gets for a round. */
  constructor(
    readonly seconds: number,
    readonly setup: Setup = {},
    readonly patience = PATIENCE,
  ) {
    this.#guest = new Guest(seconds, setup);
  }

  async hashes(batch: Batch): Promise<Uint32Array> {
    const bytes = await this.#ask({ kind: 'hashes', batch });
    return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
  }

  async run(sequences: readonly Sequence[]): Promise<CallRecord[][]> {
    if (sequences.length === 0) return [];
    return JSON.parse((await this.#ask({ kind: 'run', sequences })).toString('utf8')) as CallRecord[][];
  }

  close(): Promise<void> {
    return this.#guest.close();
  }

  /** Asks a second guest where the first says nothing: a kernel that hangs on these calls hangs again. */
  async #ask(round: Round): Promise<Buffer> {
    try {
      return await this.#guest.ask(round, this.patience);
    } catch (error) {
      if (!(error instanceof StallError)) throw error;
    }
    await this.#guest.end();
    this.#guest = new Guest(this.seconds, this.setup);
    const answer = await this.#guest.ask(round, this.patience);
    this.stalls++;
    return answer;
  }
}
