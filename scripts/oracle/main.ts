// `npm run oracle -- [options]`: see options.ts.
import { randomBytes } from 'node:crypto';
import { SetupError } from '../vm/find';
import { getOracleQemu } from './find';
import { runInterrupts } from './interrupts';
import { HELP, parseOptions, UsageError, type OracleOptions } from './options';
import { runOracle } from './run';

async function compare({ mode, seed, accesses, without, json }: OracleOptions): Promise<number> {
  const { program, version } = getOracleQemu(process.env);
  const { dumps, ...result } =
    mode === 'interrupts'
      ? await runInterrupts({ program, seed, accesses, without })
      : await runOracle({ mode, seed, accesses, without, program });
  if (!json) for (const dump of dumps) process.stdout.write(`${dump}\n\n`);
  process.stdout.write(`${JSON.stringify({ mode, seed, qemu: version, ...result })}\n`);
  return result.mismatches === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  // QEMU ends with this process, however that ends.
  process.once('SIGTERM', () => process.exit(143));
  process.once('SIGINT', () => process.exit(130));
  try {
    const options = parseOptions(process.argv.slice(2), randomBytes(4).readUInt32LE(0));
    if (options !== 'help') return await compare(options);
    process.stdout.write(HELP);
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof SetupError)) throw error;
    process.stderr.write(`oracle: ${error.message}\n`);
    return 2;
  }
}

main().then(
  (status) => (process.exitCode = status),
  (error: unknown) => {
    process.stderr.write(
      `oracle: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = 2;
  },
);
