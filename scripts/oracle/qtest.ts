// QEMU driven through the qtest protocol: a line a command, a line an answer, in the same order.
// Commands are collected and sent together; there is no guest.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const START_MILLISECONDS = 30_000;

interface Batch {
  readonly wanted: number;
  readonly answers: string[];
  readonly done: (answers: string[]) => void;
  readonly fail: (error: Error) => void;
}

export class Qtest {
  #commands: string[] = [];
  readonly #batches: Batch[] = [];
  #rest = '';
  #failure: Error | undefined;

  private constructor(
    private readonly socket: Socket,
    child: ChildProcess,
    private readonly end: () => void,
    said: () => string,
  ) {
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => this.#receive(text));
    const lost = (why: string): void => this.#fail(new Error(`QEMU is gone (${why}): ${said().trim()}`));
    socket.on('error', (error) => lost(error.message));
    child.once('exit', (status, signal) => lost(`${status ?? signal}`));
  }

  /** Starts `program` with a machine's `arguments_`. QEMU ends with {@link close}, or with this process. */
  static async start(program: string, arguments_: readonly string[]): Promise<Qtest> {
    const folder = mkdtempSync(join(tmpdir(), 'iommufd-oracle-'));
    const path = join(folder, 'qtest');
    const server = createServer();
    await new Promise<void>((listening) => server.listen(path, listening));
    const child = spawn(program, [...arguments_, '-qtest', `unix:${path}`, '-qtest-log', '/dev/null'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const end = (): void => {
      child.kill('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    };
    process.once('exit', end);
    child.once('exit', () => process.off('exit', end));
    let said = '';
    // It warns of every kind of broken table once.
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-2000)));
    const connected = new Promise<Socket>((accept, reject) => {
      server.once('connection', accept);
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`QEMU ended at once: ${said.trim()}`)));
      setTimeout(() => reject(new Error('QEMU does not connect')), START_MILLISECONDS).unref();
    });
    try {
      return new Qtest(await connected, child, end, () => said);
    } catch (error) {
      end();
      throw error;
    } finally {
      server.close();
    }
  }

  /** Adds a command to the next {@link flush}. */
  command(line: string): void {
    this.#commands.push(line);
  }

  /** Sends what was collected; the answers, one a command, without their 'OK'. */
  async flush(): Promise<string[]> {
    const commands = this.#commands;
    this.#commands = [];
    if (this.#failure !== undefined) throw this.#failure;
    if (commands.length === 0) return [];
    return new Promise((done, fail) => {
      this.#batches.push({ wanted: commands.length, answers: [], done, fail });
      this.socket.write(`${commands.join('\n')}\n`);
    });
  }

  /** Nothing is answered any more. */
  #fail(error: Error): void {
    this.#failure ??= error;
    for (const batch of this.#batches.splice(0)) batch.fail(this.#failure);
  }

  close(): void {
    this.socket.destroy();
    this.end();
  }

  #receive(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const batch = this.#batches[0];
      if (batch === undefined || !line.startsWith('OK')) {
        this.#fail(new Error(`QEMU answers '${line}'`));
        return;
      }
      batch.answers.push(line.slice(3));
      if (batch.answers.length < batch.wanted) continue;
      this.#batches.shift();
      batch.done(batch.answers);
    }
  }
}
