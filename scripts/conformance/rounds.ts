/**
 * Work for a kernel in another machine, through a folder that both can write: the host puts down `round-N.json`, the
 * guest `round-N.out`, N from 0. One guest serves any number of rounds.
 */
import { existsSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Batch, LocalPeer } from './peer';
import type { Sequence } from './program';

/** What is asked of the guest. */
export type Round =
  | { readonly kind: 'hashes'; readonly batch: Batch }
  | { readonly kind: 'run'; readonly sequences: readonly Sequence[] }
  | { readonly kind: 'end' };

const POLL_MILLISECONDS = 10;

export function roundFile(folder: string, number: number, ending: 'json' | 'out'): string {
  return join(folder, `round-${number}.${ending}`);
}

/** Writes a file that is there only when it is whole. */
export function putDown(path: string, contents: string | Uint8Array): void {
  writeFileSync(`${path}.part`, contents);
  renameSync(`${path}.part`, path);
}

function answer(peer: LocalPeer, round: Exclude<Round, { kind: 'end' }>): string | Uint8Array {
  if (round.kind === 'run') return JSON.stringify(peer.runNow(round.sequences));
  const hashes = peer.hashNow(round.batch);
  return new Uint8Array(hashes.buffer);
}

/** The guest's side: serves rounds until it is told to end. */
export async function serve(folder: string, peer: LocalPeer): Promise<void> {
  for (let number = 0; ; number++) {
    const path = roundFile(folder, number, 'json');
    while (!existsSync(path)) await sleep(POLL_MILLISECONDS);
    const round = JSON.parse(readFileSync(path, 'utf8')) as Round;
    if (round.kind === 'end') return;
    putDown(roundFile(folder, number, 'out'), answer(peer, round));
  }
}

/** The host's side of one round. `gone` says why there will be no answer, once there is a reason. */
export async function ask(
  folder: string,
  number: number,
  round: Round,
  gone: () => string | undefined,
): Promise<Buffer> {
  const [question, reply] = [roundFile(folder, number, 'json'), roundFile(folder, number, 'out')];
  putDown(question, JSON.stringify(round));
  while (!existsSync(reply)) {
    const reason = gone();
    if (reason !== undefined) throw new Error(`the guest ended during round ${number}: ${reason}`);
    await sleep(POLL_MILLISECONDS);
  }
  const bytes = readFileSync(reply);
  for (const path of [question, reply]) unlinkSync(path);
  return bytes;
}
