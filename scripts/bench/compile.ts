// The C peers, built when they are first needed and kept in the user's cache folder.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { TrialError, type Unavailable } from './result';

// From dist/scripts/bench, where this runs, to scripts/bench.
const SOURCES = join(__dirname, '../../../scripts/bench');
/** What the sources include. */
const HEADERS = ['measure.h', 'ring.h', '../../native/ring.h'].map((name) => join(SOURCES, name));
const FLAGS = ['-std=gnu11', '-O2', '-pthread'];

const compiled = new Map<string, string | Unavailable>();

/** The program built from scripts/bench/`name`.c, or why there is none. Throws TrialError if the source does not compile. */
export function compile(name: string): string | Unavailable {
  let program = compiled.get(name);
  if (program === undefined) compiled.set(name, (program = build(name)));
  return program;
}

/** The folder for programs, made if need be, or why there is none. */
function programs(): { folder: string } | Unavailable {
  const folder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'iommufd', 'bench');
  try {
    mkdirSync(folder, { recursive: true });
    return { folder };
  } catch (error) {
    return { unavailable: `there is no place for C programs: ${(error as Error).message}` };
  }
}

function build(name: string): string | Unavailable {
  const compiler = process.env['CC'] ?? 'cc';
  const version = spawnSync(compiler, ['--version'], { encoding: 'utf8' });
  if (version.status !== 0) {
    return {
      unavailable: `there is no C compiler: ${version.error?.message ?? `${compiler} does not work`}`,
    };
  }
  const place = programs();
  if ('unavailable' in place) return place;
  const source = join(SOURCES, `${name}.c`);
  const hash = createHash('sha256').update(version.stdout).update(FLAGS.join(' '));
  for (const file of [source, ...HEADERS]) hash.update(readFileSync(file));
  const program = join(place.folder, `${basename(name)}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(program)) return program;
  // Under a name of its own first: another bench may be building the same.
  const fresh = `${program}.${process.pid}`;
  const { status, stderr } = spawnSync(compiler, [...FLAGS, '-o', fresh, source], { encoding: 'utf8' });
  if (status !== 0) {
    rmSync(fresh, { force: true });
    throw new TrialError(`${compiler} does not compile ${source}:\n${stderr}`);
  }
  renameSync(fresh, program);
  return program;
}
