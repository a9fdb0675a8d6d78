// The part of the bench that runs in a guest: it takes the turns that its argument describes (of each figure a Turns, as
// JSON), and prints what each figure gave as a line of JSON.
import { TrialError } from './result';
import { takeTurns, type Taken, type Turns } from './sides';

function take(turns: Turns): Omit<Taken, 'figure'> {
  try {
    return { turns: [...takeTurns(turns)] };
  } catch (error) {
    if (!(error instanceof TrialError)) throw error;
    return { failed: error.message };
  }
}

for (const [figure, turns] of Object.entries(JSON.parse(process.argv[2]) as Record<string, Turns>)) {
  const taken: Taken = { figure, ...take(turns) };
  process.stdout.write(`${JSON.stringify(taken)}\n`);
}
