/** `iommufd build`: the native addon. What npm's install script does, where npm was not allowed to run it. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { EXIT, parseCommand, type Output } from './command';

const usage = `iommufd build

Builds the native addon, which Linux's /dev/iommu needs and the simulated kernel does not. npm does the same when it
installs the package, where Python 3, make and a C++ compiler are there and its policy on install scripts lets it.

Exit status: 0 it is built, 1 it is not, 2 bad arguments.
`;

/** From the package's folder of compiled files. */
const SCRIPT = join(__dirname, '../../../scripts/install.mjs');

export function run(args: string[], output: Output): number {
  const parsed = parseCommand({ usage, options: {}, words: [0, 0] }, args, output);
  if (typeof parsed === 'number') return parsed;
  const { status, error } = spawnSync(process.execPath, [SCRIPT, '--required'], { stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) return EXIT.failed;
  output.out('the native addon is built\n');
  return EXIT.done;
}
