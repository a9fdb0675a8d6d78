/** Where the tests of the Linux backend run: Linux with the addon built. */
import { spawnSync } from 'node:child_process';
import { loadAddon } from '../../lib/linux/addon';
import type { Addon } from '../../lib/linux/addon';

const loaded = loadAddon();

/** Why there is no addon, where that is as it should be; undefined where there is one, or one could be built. */
const excuse = 'reason' in loaded && !canBuild() ? loaded.reason : undefined;

/**
 * `describe` where the addon is, or where it could have been built and its absence is a failure; elsewhere the tests
 * are skipped, and their name says why.
 */
export function describeLinux(name: string, tests: () => void): void {
  if (excuse !== undefined) describe.skip(`${name} (${excuse})`, tests);
  else describe(name, tests);
}

/** The addon. Throws the reason where there is none. */
export function needAddon(): Addon {
  if ('reason' in loaded) throw new Error(loaded.reason);
  return loaded.addon;
}

function canBuild(): boolean {
  const compiler = process.env['CXX'] ?? 'c++';
  return process.platform === 'linux' && spawnSync(compiler, ['--version']).error === undefined;
}
