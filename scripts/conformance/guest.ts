/** One guest that serves rounds, and the folder it shares with this process. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ask, putDown, roundFile, type Round } from './rounds';
import type { Setup } from './simulated';

const RUNNER = join(__dirname, '../vm/main.js');
const PROGRAM = join(__dirname, 'main.js');
const LAST_WORDS = 4000;
/** Huge pages where the sequences ask for them, and nowhere else: both can be seen, and would be chance. */
const PARAMETERS = 'transparent_hugepage=never hugepages=8';

/** Root has every capability that is in the bounding set. */
const WITHOUT_IPC_LOCK = ['setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock', '--'];

/** A guest that lives has not answered a round in all that time. */
export class StallError extends Error {
  override name = 'StallError';
}

export class Guest {
  readonly #folder = mkdtempSync(join(tmpdir(), 'iommufd-conformance-'));
  readonly #vm: ChildProcess;
  readonly #ended: Promise<unknown>;
  #said = '';
  #gone: string | undefined;
  #round = 0;

  /** `seconds` until the guest is ended, whatever it does. */
  constructor(seconds: number, { iommu = 'intel', memlock }: Setup) {
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

  /** Its answer. Throws StallError where there is none after `patience` seconds, and the guest is still there. */
  async ask(round: Round, patience: number): Promise<Buffer> {
    const end = Date.now() + patience * 1000;
    const number = this.#round++;
    const late = () => (Date.now() > end ? `no answer in ${patience} s` : undefined);
    try {
      return await ask(this.#folder, number, round, () => this.#gone ?? late());
    } catch (error) {
      throw this.#gone === undefined && late() ? new StallError((error as Error).message) : error;
    }
  }

  /** Lets it end by itself. */
  async close(): Promise<void> {
    if (this.#gone === undefined) putDown(roundFile(this.#folder, this.#round, 'json'), '{"kind":"end"}');
    await this.#leave();
  }

  /** Ends it, whatever it does. */
  async end(): Promise<void> {
    this.#vm.kill('SIGTERM');
    await this.#leave();
  }

  async #leave(): Promise<void> {
    await this.#ended;
    process.off('exit', this.#abandon);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
