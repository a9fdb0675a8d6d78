// The part of the bench that runs in a guest: it takes the turns that its argument describes (a Turns, as JSON), and
// prints each as a line of JSON.
import { TrialError } from './result';
import { takeTurns, type Turns } from './sides';

function main(): number {
  try {
    for (const turn of takeTurns(JSON.parse(process.argv[2]) as Turns))
      process.stdout.write(`${JSON.stringify(turn)}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof TrialError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
}

process.exitCode = main();
