// The QEMU that is asked: 11.1.3 or later, whose VT-d answers as quirks.ts says.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { cacheFolder, SetupError, type Environment } from '../vm/find';

const OLDEST = [11, 1, 3];

export interface OracleQemu {
  readonly program: string;
  /** As in '11.1.3'. */
  readonly version: string;
}

function versionOf(program: string): string | undefined {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return /version (\d+\.\d+\.\d+)/.exec(stdout ?? '')?.[1];
}

function isRecent(version: string): boolean {
  const parts = version.split('.').map(Number);
  const different = OLDEST.findIndex((oldest, i) => parts[i] !== oldest);
  return different < 0 || parts[different]! > OLDEST[different]!;
}

/** What scripts/oracle/qemu has put in the cache, newest first. */
function cached(environment: Environment): string[] {
  const folder = cacheFolder(environment);
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => /^qemu-\d/.test(name));
  names.sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
  return names.map((name) => join(folder, name, 'qemu-system-x86_64')).filter((path) => existsSync(path));
}

/**
 * $IOMMUFD_ORACLE_QEMU, else the newest in the cache, else the one on PATH.
 * @throws SetupError when there is none, or it is too old
 */
export function findOracleQemu(environment: Environment): OracleQemu {
  const asked = environment.IOMMUFD_ORACLE_QEMU || undefined;
  const candidates = asked === undefined ? [...cached(environment), 'qemu-system-x86_64'] : [asked];
  for (const program of candidates) {
    const version = versionOf(program);
    if (version !== undefined && isRecent(version)) return { program, version };
  }
  throw new SetupError(
    `No QEMU ${OLDEST.join('.')} or later${asked === undefined ? '' : ` at ${asked}`}. ` +
      'Get one for the oracle alone:\n  scripts/oracle/qemu',
  );
}

/** The same, after downloading it where it is missing. */
export function getOracleQemu(environment: Environment): OracleQemu {
  try {
    return findOracleQemu(environment);
  } catch (error) {
    if (!(error instanceof SetupError) || environment.IOMMUFD_ORACLE_QEMU) throw error;
  }
  const script = resolve(__dirname, '../../../scripts/oracle/qemu');
  const { status } = spawnSync(script, [], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new SetupError(`${script} failed`);
  return findOracleQemu(environment);
}
