/** `iommufd build`: the native addon. What npm's install script does, where npm was not allowed to run it. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { EXIT, parseCommand, printJson, type Output } from './command';

const usage = `iommufd build [--json]

Builds the native addon, which Linux's /dev/iommu needs and the simulated kernel does not. npm does the same when it
installs the package, where Python 3, make and a C++ compiler are there and its policy on install scripts lets it.

  --json  { "built" }

Exit status: 0 it is built, 1 it is not, 2 bad arguments.
`;

/** From the package's folder of compiled files. */
const SCRIPT = join(__dirname, '../../../scripts/install.mjs');

export function run(args: string[], output: Output): number {
  const options = { json: { type: 'boolean' } } as const;
  const parsed = parseCommand({ usage, options, words: [0, 0] }, args, output);
  if (typeof parsed === 'number') return parsed;
  // What it says is about what went wrong.
  const { status, error } = spawnSync(process.execPath, [SCRIPT, '--required'], {
    stdio: ['ignore', 2, 'inherit'],
  });
  if (error) throw error;
  const built = status === 0;
  if (parsed.values.json) printJson(output, { built });
  else if (built) output.out('the native addon is built\n');
  return built ? EXIT.done : EXIT.failed;
}
