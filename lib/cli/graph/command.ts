/** `iommufd graph`: draws an Iommu's state. */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { modelOf } from './model';
import { readState, StateError } from './state';
import { drawSvg } from './svg';

export const graphUsage = `iommufd graph [--json] [--output FILE] PROGRAM | STATE.json

Draws devices, address spaces and memory as SVG. PROGRAM is a module that exports an open Iommu, which is asked when
the module has run; STATE.json is what JSON.stringify(iommu.describe()) gave.

  --json         the state itself, as a list, for programs
  --output FILE  instead of standard output
`;

/** Where output goes. */
export interface Output {
  readonly out: (text: string) => void;
  readonly error: (text: string) => void;
}

/** The exit status: 0, 1 (no state), 2 (bad arguments). Rejects with what the program throws. */
export async function graph(args: string[], { out, error }: Output): Promise<number> {
  let parsed;
  try {
    const options = {
      json: { type: 'boolean' },
      output: { type: 'string' },
      help: { type: 'boolean' },
    } as const;
    parsed = parseArgs({ args, options, allowPositionals: true });
  } catch (problem) {
    error(`${problem instanceof Error ? problem.message : String(problem)}\n\n${graphUsage}`);
    return 2;
  }
  const { values, positionals } = parsed;
  if (values.help) {
    out(graphUsage);
    return 0;
  }
  if (positionals.length !== 1) {
    error(graphUsage);
    return 2;
  }
  try {
    const states = await readState(positionals[0]);
    const text = values.json ? `${JSON.stringify(states, undefined, 2)}\n` : drawSvg(states.map(modelOf));
    if (values.output === undefined) out(text);
    else writeFileSync(values.output, text);
    return 0;
  } catch (problem) {
    if (!(problem instanceof StateError)) throw problem;
    error(`${problem.message}\n`);
    return 1;
  }
}
