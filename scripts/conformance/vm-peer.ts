/** Linux in the virtual machine, as a peer: one guest for all rounds. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Batch, Peer } from './peer';
import type { CallRecord, Sequence } from './program';
import { ask, putDown, roundFile } from './rounds';
import type { Setup } from './simulated';

const RUNNER = join(__dirname, '../vm/main.js');
const PROGRAM = join(__dirname, 'main.js');
const LAST_WORDS = 4000;
/** Huge pages where the sequences ask for them, and nowhere else: both can be seen, and would be chance. */
const PARAMETERS = 'transparent_hugepage=never hugepages=8';

/** Root has every capability that is in the bounding set. */
const WITHOUT_IPC_LOCK = ['setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock', '--'];

export class VmPeer implements Peer {
  readonly name = 'linux';
  readonly #folder = mkdtempSync(join(tmpdir(), 'iommufd-conformance-'));
  readonly #vm: ChildProcess;
  readonly #ended: Promise<unknown>;
  #said = '';
  #gone: string | undefined;
  #round = 0;

  /** `seconds` until the guest is ended, whatever it does. */
  constructor(seconds: number, { iommu = 'intel', memlock }: Setup = {}) {
    const machine = ['--iommu', iommu, '--append', PARAMETERS];
    const vm = [...machine, '--timeout', String(seconds), '--share', this.#folder, '--'];
    const limits =
      memlock === undefined ? [] : [...WITHOUT_IPC_LOCK, 'prlimit', `--memlock=${memlock}`, '--'];
    const command = [process.execPath, '--enable-source-maps', PROGRAM, '--serve', this.#folder];
    const all = [RUNNER, ...vm, ...limits, ...command];
    this.#vm = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#vm.stdout, this.#vm.stderr])
      stream?.on(
        'data',
        (chunk: Buffer) => (this.#said = (this.#said + chunk.toString()).slice(-LAST_WORDS)),
      );
    process.once('exit', this.#abandon);
    this.#ended = once(this.#vm, 'exit').then(([code]) => {
      this.#gone = `exit status ${String(code)}\n${this.#said}`;
    });
  }

  /** This process ends before the guest has. */
  readonly #abandon = (): void => {
    this.#vm.kill('SIGTERM');
    rmSync(this.#folder, { recursive: true, force: true });
  };

  async hashes(batch: Batch): Promise<Uint32Array> {
    const bytes = await this.#ask({ kind: 'hashes', batch });
    return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
  }

  async run(sequences: readonly Sequence[]): Promise<CallRecord[][]> {
    if (sequences.length === 0) return [];
    return JSON.parse((await this.#ask({ kind: 'run', sequences })).toString('utf8')) as CallRecord[][];
  }

  async close(): Promise<void> {
    if (this.#gone === undefined) putDown(roundFile(this.#folder, this.#round, 'json'), '{"kind":"end"}');
    await this.#ended;
    process.off('exit', this.#abandon);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #ask(round: Parameters<typeof ask>[2]): Promise<Buffer> {
    return ask(this.#folder, this.#round++, round, () => this.#gone);
  }
}
