/** Commands that are programs of this package: they read process.argv, and end by themselves. */
import { join } from 'node:path';
import { endWhenUnread, parseCommand, type Output, type Run } from './command';

/** From the package's folder of compiled files. */
const BUILT = join(__dirname, '../..');

const demoUsage = `iommufd demo [--json]

A device copies memory through an IOMMU, is kept out of memory that is not its own, and a page fault is answered: on
/dev/iommu where that is, else in the software IOMMU. IOMMUFD_BACKEND=simulated or linux decides for yourself.

  --json  one object

Exit status: 0 all of it worked, 1 it did not, 2 bad arguments.
`;

/** Says its own help. */
export const runVm: Run = (args) => run('scripts/vm/main.js', args);

export const runDemo: Run = (args: string[], output: Output) => {
  const parsed = parseCommand(
    { usage: demoUsage, options: { json: { type: 'boolean' } }, words: [0, 0] },
    args,
    output,
  );
  if (typeof parsed === 'number') return parsed;
  endWhenUnread();
  return run('examples/demo.js', parsed.values.json === true ? ['--json'] : []);
};

function run(name: string, args: string[]): undefined {
  const path = join(BUILT, name);
  process.argv.splice(1, Infinity, path, ...args);
  require(path);
}
