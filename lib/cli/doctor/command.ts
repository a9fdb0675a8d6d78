/** `iommufd doctor`: can programs have devices here, and if not, why not? */
import { EXIT, parseCommand, printJson, reportRefusals, type Output } from '../command';
import { openSystem, type System } from '../system';
import { judge, type Check } from './checks';
import { gatherFacts } from './facts';

export const usage = `iommufd doctor [--json] [DEVICE…]

Looks at everything that a program needs to have a device: kernel, IOMMU, interrupt remapping, /dev/iommu, VFIO,
permissions, IOMMU groups, the limit of locked memory, the addon. Each problem comes with its fix. DEVICE is a PCI
address, such as 0000:00:04.0 or 00:04.0; without one, the devices are looked at that VFIO has.

  --json  { "ok", "checks": [{ "name", "status", "says", "advice", "commands" }] }; status is ok, warning, problem,
          unknown (Linux does not say) or skipped (another problem comes first)

Exit status: 0 all is well, 1 there is a problem, 2 bad arguments.
`;

const options = { json: { type: 'boolean' } } as const;

export function run(args: string[], output: Output): number {
  const parsed = parseCommand({ usage, options, words: [0, Infinity] }, args, output);
  if (typeof parsed === 'number') return parsed;
  const json = parsed.values.json === true;
  return reportRefusals(json, output, () => doctor(openSystem(), parsed.positionals, json, output));
}

export function doctor(system: System, asked: readonly string[], json: boolean, output: Output): number {
  const checks = judge(gatherFacts(system, asked));
  const problems = checks.filter(({ status }) => status === 'problem').length;
  if (json) printJson(output, { ok: problems === 0, checks });
  else output.out(`${checks.map(lines).join('')}\n${verdict(problems, checks)}\n`);
  return problems === 0 ? EXIT.done : EXIT.failed;
}

function verdict(problems: number, checks: readonly Check[]): string {
  if (problems > 1) return `${problems} problems, best solved from the top.`;
  if (problems === 1) return '1 problem.';
  const unknown = checks.some(({ status }) => status === 'unknown');
  return unknown ? 'No problem, as far as Linux says.' : 'All is well.';
}

const MARKS = { ok: 'ok', warning: 'warning', problem: 'PROBLEM', unknown: '?', skipped: '-' } as const;
const INDENT = ' '.repeat(23);

function lines({ name, status, says, advice, commands = [] }: Check): string {
  const first = `${MARKS[status].padEnd(9)}${name.padEnd(14)}${says}`;
  const more = [...(advice === undefined ? [] : [advice]), ...commands.map((command) => `  $ ${command}`)];
  return [first, ...more.map((line) => INDENT + line)].map((line) => `${line}\n`).join('');
}
