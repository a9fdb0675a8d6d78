// `npm run soak -- [options]`: faults by the million, each seen once, in order and answered.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadAddon } from '../../lib/linux/addon';
import { compile } from '../bench/compile';
import { TrialError, type Unavailable } from '../bench/result';

const HELP = `Usage: npm run soak -- [options]

Three soaks, each in a process of its own. Every fault must be seen once and in order, and answered
once; none may be dropped; memory must stay flat.

  pump        a program in C stands in for the kernel's fault file; the addon's pump moves its
              records through the ring, and the responses back
  ring        a producer in C publishes into the ring itself
  simulated   the simulated IOMMU: random responses while the device is detached, moved and let go of

  --only NAME   one of them (may be repeated)
  --faults N    how many, 8 or more (default 100,000,000; simulated: a hundredth of it)
  --seed S      of what is random (default: another each time; it is printed)
  --json        one JSON object on stdout: {"seed", "pump": {…}, …}; {"error": {"message"}} where the
                command line makes no sense
  --help        show this

A soak that cannot be had here (pump, ring: no addon or no C compiler) is left out, and
says {"unavailable": why}. Exit status: 1 when a soak failed, or was left out that --only asked for,
or none is left; 2 when the command line made no sense.
`;

const NAMES = ['pump', 'ring', 'simulated'] as const;
type Name = (typeof NAMES)[number];

/** A group of the pump's soak may have 4 faults, and a round of them 8. */
const ROUND = 8;
const SIMULATED_SHARE = 100;

class UsageError extends Error {}

function say(text: string): void {
  process.stderr.write(`soak: ${text}\n`);
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        only: { type: 'string', multiple: true, default: [] as string[] },
        faults: { type: 'string', default: '100000000' },
        seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
      strict: true,
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function whole(name: string, text: string, least: number, most: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(number >= least && number <= most))
    throw new UsageError(`--${name} is a whole number from ${least} to ${most}, not '${text}'`);
  return number;
}

/** The command that runs a soak, or why it cannot be here. Throws TrialError where its program does not compile. */
function command(name: Name, faults: number, seed: number): string[] | Unavailable {
  const script = join(__dirname, `${name}.js`);
  const node = [process.execPath, '--enable-source-maps', '--expose-gc', script];
  if (name === 'simulated') return [...node, String(faults), String(seed)];
  const addon = loadAddon();
  if ('reason' in addon) return { unavailable: addon.reason };
  // The ring's producer, which that soak starts itself; the pump's starts the soak.
  const inC = compile(name === 'ring' ? 'ring-producer' : '../soak/feeder');
  if (typeof inC !== 'string') return inC;
  return [...(name === 'ring' ? [] : [inC, String(faults)]), ...node, String(faults)];
}

/** What a soak says of itself, or why it does not. */
type Result = Record<string, unknown> | Unavailable | { readonly failed: string };

function soak(name: Name, faults: number, seed: number): Result {
  try {
    const run = command(name, faults, seed);
    if ('unavailable' in run) return run;
    const [program, ...args] = run;
    const { status, signal, stdout } = spawnSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (status === 0) return JSON.parse(stdout) as Record<string, unknown>;
    return { failed: `ended with ${status ?? signal}` };
  } catch (error) {
    if (!(error instanceof TrialError)) throw error;
    return { failed: error.message };
  }
}

/** Says what became of a soak on stderr; whether it ran and is well. */
function isWell(name: Name, result: Result): boolean {
  if ('unavailable' in result) say(`left out: ${name}: ${String(result.unavailable)}`);
  else if ('failed' in result) say(`failed: ${name}: ${String(result.failed)}`);
  else return true;
  return false;
}

/** 0 or 1. Whether a soak that is left out is a failure depends on whether it was asked for by name. */
function soakAll(
  names: readonly Name[],
  asked: boolean,
  count: (name: Name) => number,
  seed: number,
  json: boolean,
) {
  const results: Partial<Record<Name, Result>> = {};
  let well = 0;
  let failed = false;
  for (const name of names) {
    const result = soak(name, count(name), seed);
    results[name] = result;
    if (isWell(name, result)) well++;
    else failed ||= asked || 'failed' in result;
    if (!json) process.stdout.write(`${name}: ${JSON.stringify(result)}\n`);
  }
  if (json) process.stdout.write(`${JSON.stringify({ seed, ...results }, null, 2)}\n`);
  return failed || well === 0 ? 1 : 0;
}

function main(): number {
  const { only, json, help, ...rest } = parse(process.argv.slice(2));
  if (help) {
    process.stdout.write(HELP);
    return 0;
  }
  const unknown = only.find((name) => !NAMES.some((known) => known === name));
  if (unknown !== undefined) throw new UsageError(`--only ${unknown}: there are ${NAMES.join(', ')}`);
  const faults = ROUND * Math.ceil(whole('faults', rest.faults, ROUND, 2 ** 40) / ROUND);
  const seed = whole('seed', rest.seed, 0, 2 ** 32 - 1);
  say(`seed ${seed}`);
  const asked = only.length > 0;
  const names = asked ? NAMES.filter((name) => only.includes(name)) : NAMES;
  const count = (name: Name) => (name === 'simulated' ? Math.ceil(faults / SIMULATED_SHARE) : faults);
  return soakAll(names, asked, count, seed, json);
}

try {
  process.exitCode = main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  const { message } = error;
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify({ error: { message } })}\n`);
  else say(message);
  process.exitCode = 2;
}
