/** `iommufd graph`: draws an Iommu's state. */
import { writeFileSync } from 'node:fs';
import { endWhenUnread, EXIT, parseCommand, printJson, type Output } from '../command';
import { modelOf } from './model';
import { fileError, readState, StateError } from './state';
import { drawSvg } from './svg';

export const usage = `iommufd graph [--json] [--output FILE] PROGRAM | STATE.json

Draws devices, address spaces and memory as SVG. PROGRAM is a module that exports an open Iommu, which is asked when
the module has run; STATE.json is what JSON.stringify(iommu.describe()) gave.

  --json         the state itself, as a list, for programs
  --output FILE  instead of standard output

Exit status: 0 it is drawn, 1 there is no state, 2 bad arguments.
`;

const options = { json: { type: 'boolean' }, output: { type: 'string' } } as const;

/** The exit status: 0, 1 (no state), 2 (bad arguments). Rejects with what the program throws. */
export async function run(args: string[], output: Output): Promise<number> {
  const parsed = parseCommand({ usage, options, words: [1, 1] }, args, output);
  if (typeof parsed === 'number') return parsed;
  const { values, positionals } = parsed;
  endWhenUnread();
  try {
    const states = await readState(positionals[0]);
    const text = values.json ? `${JSON.stringify(states, undefined, 2)}\n` : drawSvg(states.map(modelOf));
    if (values.output === undefined) output.out(text);
    else write(values.output, text);
    return EXIT.done;
  } catch (problem) {
    if (!(problem instanceof StateError)) throw problem;
    const { code, message } = problem;
    if (values.json) printJson(output, { error: { code, message } });
    else output.error(`${message}\n`);
    return EXIT.failed;
  }
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw fileError(path, error);
  }
}
