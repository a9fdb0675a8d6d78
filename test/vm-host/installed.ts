/** The package as npm would install it, in a folder that any user can read, and guests that are started from there. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');
const PACKAGE = 'node_modules/iommufd';
const CLI = `${PACKAGE}/dist/lib/cli/main.js`;
/** What the addon's loader takes. */
const DEPENDENCIES = ['bindings', 'file-uri-to-path'];

/** What `iommufd vm --json` says. */
export interface GuestRun {
  readonly outcome: string;
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Installed {
  readonly folder = mkdtempSync(join(tmpdir(), 'iommufd-installed-'));

  constructor() {
    chmodSync(this.folder, 0o755);
    const home = join(this.folder, PACKAGE);
    mkdirSync(join(this.folder, 'node_modules/.bin'), { recursive: true });
    const pack = ['pack', '--ignore-scripts', '--silent', '--pack-destination', this.folder];
    const name = execFileSync('npm', pack, { cwd: ROOT, encoding: 'utf8' }).trim();
    execFileSync('tar', ['-xf', name, '--no-same-owner'], { cwd: this.folder });
    cpSync(join(this.folder, 'package'), home, { recursive: true });
    // npm would build it.
    cpSync(join(ROOT, 'build/Release/iommufd.node'), join(home, 'build/Release/iommufd.node'));
    for (const one of DEPENDENCIES)
      cpSync(join(ROOT, 'node_modules', one), join(this.folder, 'node_modules', one), { recursive: true });
    symlinkSync(`../iommufd/dist/lib/cli/main.js`, join(this.folder, 'node_modules/.bin/iommufd'));
    chmodSync(join(this.folder, CLI), 0o755);
  }

  /** Runs the command `iommufd` here. */
  run(...args: string[]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
      cwd: this.folder,
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  }

  /** Runs a program of JavaScript in a guest, with HELPERS at its head; what it gave to `answer`, by JSON. */
  guest(options: readonly string[], program: string): unknown {
    const command = [process.execPath, '-e', HELPERS + program];
    const { stdout, stderr } = this.run('vm', '--json', ...options, '--', ...command);
    if (stderr !== '') throw new Error(stderr);
    const run = JSON.parse(stdout) as GuestRun;
    if (run.outcome !== 'exit' || run.status !== 0 || run.stderr !== '')
      throw new Error(`${run.outcome} ${run.status}: ${run.stderr}`);
    return JSON.parse(run.stdout);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** For programs in the guest: the command as a process of its own, what binding a device says, and root's shell. */
const HELPERS = `
const { spawnSync } = require('node:child_process');
const { writeFileSync, mkdirSync } = require('node:fs');
/** Runs iommufd with --json. */
function iommufd(args, user) {
  const who = user === undefined ? {} : { uid: user, gid: user };
  const run = spawnSync(process.execPath, ['${CLI}', ...args, '--json'], { encoding: 'utf8', ...who });
  return { status: run.status, ...(run.stdout ? JSON.parse(run.stdout) : { stderr: run.stderr }) };
}
/** What is wrong, by the doctor. */
function doctor(args = [], user) {
  const { status, checks } = iommufd(['doctor', ...args], user);
  const problems = checks.filter((check) => check.status === 'problem');
  return { status, problems: problems.map(({ name }) => name), says: problems.map(({ says }) => says),
    commands: problems.flatMap(({ commands }) => commands) };
}
/** Whether this program, or one of another user, can have a device: 'bound', or the error's code. */
function attempt(bdf, user) {
  if (user === undefined) return bind(bdf);
  const program = bind + ';console.log(bind(' + JSON.stringify(bdf) + '));';
  return spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', uid: user, gid: user }).stdout.trim();
}
function bind(bdf) {
  const { Iommu } = require('iommufd');
  let iommu;
  try {
    iommu = Iommu.open({ backend: 'linux' });
    iommu.bind(bdf, { cookie: 1 });
    return 'bound';
  } catch (error) {
    return error.code;
  } finally {
    iommu?.close();
  }
}
/** Runs commands as people would, root's by sudo. */
function shell(commands) {
  mkdirSync('/tmp/bin', { recursive: true });
  writeFileSync('/tmp/bin/sudo', '#!/bin/sh\\nexec "$@"\\n', { mode: 0o755 });
  const env = { ...process.env, PATH: '/tmp/bin:' + process.env.PATH };
  return commands.map((command) => spawnSync('sh', ['-c', command], { encoding: 'utf8', env }))
    .map(({ status, stderr }) => (status === 0 ? 0 : stderr));
}
function answer(value) { console.log(JSON.stringify(value)); }
`;
