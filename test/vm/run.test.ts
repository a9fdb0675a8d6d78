// A guest's life, with a program in QEMU's place that has its file descriptors: 3 control, 4 stdout, 5 stderr, 6 console, 7 disk.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { parseStatus, runGuest, type Outcome } from '../../scripts/vm/run';

const MARKER = Buffer.from('\0end');
const PRELUDE = `
const { Socket } = require('node:net');
const [control, out, err, con] = [3, 4, 5, 6].map((fd) => new Socket({ fd }));
const end = '\\0end';
`;

interface Played {
  outcome: Outcome;
  stdout: string;
  stderr: string;
  console: string;
  messages: string;
}

interface Settings {
  timeout?: number;
  signal?: AbortSignal;
  job?: string;
  stdout?: Writable;
}

async function play(script: string, settings: Settings = {}): Promise<Played> {
  const text = { stdout: '', stderr: '', console: '', messages: '' };
  const keep = (name: keyof typeof text) => (chunk: Buffer) => {
    text[name] += chunk.toString();
  };
  const sink = (name: keyof typeof text) => new PassThrough().on('data', keep(name));
  const outcome = await runGuest({
    qemu: process.execPath,
    arguments: ['-e', PRELUDE + script],
    job: Buffer.from(settings.job ?? ''),
    marker: MARKER,
    stdout: settings.stdout ?? sink('stdout'),
    stderr: sink('stderr'),
    console: keep('console'),
    messages: keep('messages'),
    timeout: settings.timeout ?? 0,
    signal: settings.signal ?? new AbortController().signal,
  });
  return { outcome, ...text };
}

describe('a run', () => {
  it('passes streams and exit status through, each by itself', async () => {
    const played = await play(
      `
      con.write('booting');
      control.once('data', (job) => {
        out.write('out:' + job + end);
        err.write('err' + end);
        control.write('exit 7\\n');
      });`,
      { job: 'the job' },
    );
    expect(played).toEqual({
      outcome: { kind: 'exit', status: 7 },
      stdout: 'out:the job',
      stderr: 'err',
      console: 'booting',
      messages: '',
    });
  });

  it('waits for the ends of the streams when the status is there first', async () => {
    const played = await play(`
      control.write('exit 0\\n');
      setTimeout(() => out.write('late'), 50);
      setTimeout(() => out.write(end), 100);
      setTimeout(() => err.write(end), 150);`);
    expect(played).toMatchObject({ outcome: { kind: 'exit', status: 0 }, stdout: 'late' });
  });

  it('loses nothing to a reader that is slow', async () => {
    let got = 0;
    const slow = new Writable({
      highWaterMark: 1024,
      write(chunk: Buffer, _encoding, done) {
        got += chunk.length;
        setImmediate(done);
      },
    });
    const script = `
      out.write(Buffer.alloc(1000000, 1), () => out.write(end));
      err.write(end);
      control.write('exit 0\\n');`;
    const { outcome } = await play(script, { stdout: slow });
    await new Promise((done) => slow.end(done));
    expect(outcome).toEqual({ kind: 'exit', status: 0 });
    expect(got).toBe(1000000);
  });

  it('says that the guest died, and passes on what it had said', async () => {
    const played = await play(`
      con.write('panic');
      process.stderr.write('qemu: error');
      out.write('half\\0e', () => setTimeout(() => process.exit(3), 50));`);
    expect(played).toMatchObject({
      outcome: { kind: 'died', reason: 'QEMU ended with exit status 3' },
      stdout: 'half\0e',
      console: 'panic',
      messages: 'qemu: error',
    });
  });

  it('says by which signal QEMU died', async () => {
    const { outcome } = await play(`process.kill(process.pid, 'SIGSEGV');`);
    expect(outcome).toEqual({ kind: 'died', reason: 'QEMU ended with signal SIGSEGV' });
  });

  it('ends a guest whose time is up', async () => {
    const { outcome } = await play(`setInterval(() => {}, 1000);`, { timeout: 300 });
    expect(outcome).toEqual({ kind: 'timeout' });
  });

  it('ends when told to, also when nobody takes its output any more', async () => {
    const aborter = new AbortController();
    const stuck = new Writable({
      highWaterMark: 1,
      write() {
        aborter.abort();
      },
    });
    const { outcome } = await play(`setInterval(() => out.write('more'.repeat(10000)), 1);`, {
      signal: aborter.signal,
      stdout: stuck,
    });
    expect(outcome).toEqual({ kind: 'aborted' });
  });

  it('is refused without QEMU', async () => {
    const nothing = new PassThrough();
    const run = runGuest({
      qemu: join(tmpdir(), 'no-such-qemu'),
      arguments: [],
      job: Buffer.alloc(0),
      marker: MARKER,
      stdout: nothing,
      stderr: nothing,
      console: () => {},
      messages: () => {},
      timeout: 0,
      signal: new AbortController().signal,
    });
    await expect(run).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('gives QEMU a file for disks that has no name', async () => {
    const played = await play(`
      const { fstatSync, writeSync } = require('node:fs');
      const { size, blocks, nlink } = fstatSync(7);
      writeSync(7, 'x', size - 1);
      out.write(JSON.stringify({ size, blocks, nlink }) + end);
      err.write(end);
      control.write('exit 0\\n');`);
    expect(JSON.parse(played.stdout)).toEqual({ size: 131072 * (512 + 520), blocks: 0, nlink: 0 });
    expect(readdirSync(tmpdir()).filter((name) => name === `iommufd-vm-${process.pid}.img`)).toEqual([]);
  });

  it('reads a status only from a whole line', () => {
    expect(parseStatus('exit 12\n')).toBe(12);
    for (const text of ['', 'exit 1', 'exit \n', 'exit 1234\n', 'x exit 1\n'])
      expect(parseStatus(text)).toBeUndefined();
  });
});

describe('npm run vm', () => {
  function main(args: string[], environment: Record<string, string>) {
    const program = join(__dirname, '../../scripts/vm/main.js');
    return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', env: environment });
  }

  it('says how to get QEMU', () => {
    const { status, stderr, stdout } = main(['true'], {
      PATH: '/nonexistent',
      IOMMUFD_VM_KERNEL: __filename,
    });
    expect({ status, stdout }).toEqual({ status: 125, stdout: '' });
    expect(stderr).toMatch(
      /^vm: QEMU not found.*\n {2}apt-get install --no-install-recommends qemu-system-x86\n$/s,
    );
  });

  it('says how to get a kernel', () => {
    const { status, stderr } = main(['--qemu', process.execPath, 'true'], { HOME: '/nonexistent' });
    expect(status).toBe(125);
    expect(stderr).toMatch(/^vm: Guest kernel not found.*scripts\/vm\/kernel\n$/s);
  });

  it('says what is wrong with the command line', () => {
    const { status, stderr } = main(['--cpus', 'many', 'true'], {});
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: "vm: --cpus is a whole number from 1 to 255, not 'many'\n",
    });
    for (const [option, why] of [
      ['--share', 'no such folder'],
      ['--dump-tables', 'Path is a directory'],
    ]) {
      const path = option === '--share' ? '/nonexistent' : tmpdir();
      const refused = main([option, path, 'true'], {});
      expect([refused.status, refused.stderr.split('\n').length]).toEqual([125, 2]);
      expect(refused.stderr).toContain(`vm: ${option} ${path}: ${why}`);
    }
  });

  it('shows what QEMU says when it does not start', () => {
    const environment = { IOMMUFD_VM_KERNEL: __filename };
    const { status, stderr } = main(['--qemu', process.execPath, 'true'], environment);
    expect(status).toBe(125);
    expect(stderr).toMatch(/QEMU says:\n.*bad option: -nodefaults/);
    expect(stderr).toMatch(/the guest ended before the command did: QEMU ended with exit status 9\n$/);
  });

  it('gives help', () => {
    for (const option of ['--help', '-h'])
      expect(main([option], {})).toMatchObject({
        status: 0,
        stderr: '',
        stdout: expect.stringContaining('--iommu TYPE'),
      });
  });
});
