// `npm run conformance -- [options]`: see options.ts.
import { randomBytes } from 'node:crypto';
import { Comparison, Counts } from './compare';
import { missing } from './expected';
import { Generator } from './generate/flavours';
import { knownDifferences } from './known-differences';
import { HELP, parseOptions, UsageError, type ConformanceOptions } from './options';
import { linuxPeer, simulatedPeer } from './peer';
import { countsTable, foundText, sequenceText } from './report';
import { serve } from './rounds';
import { suite } from './suite';
import { unsupported } from './unsupported';
import { VmPeer } from './vm-peer';

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function say(text: string): void {
  process.stderr.write(`conformance: ${text}\n`);
}

async function runBackend(options: ConformanceOptions): Promise<number> {
  const { backend, iommu } = options;
  const peer = backend === 'linux' ? linuxPeer() : simulatedPeer(undefined, { iommu });
  const excluded = unsupported(simulatedPeer());
  const generator = new Generator({ seed: options.seed, excluded, only: options.only });
  const random = Array.from({ length: options.sequences }, (_, i) => generator.sequence(i));
  for (const sequence of [...suite(excluded), ...random]) {
    const [records] = await peer.run([sequence]);
    print(options.json ? JSON.stringify({ ...sequence, records }) : sequenceText(sequence, records));
  }
  await peer.close();
  return 0;
}

function result(comparison: Comparison, options: ConformanceOptions) {
  const { sequences, differences, unsteady, counts } = comparison;
  return {
    sequences,
    calls: counts.calls,
    differences,
    unsteady,
    byIoctl: counts.byIoctl,
    seed: options.seed,
    // With little memory to lock, some calls cannot succeed.
    missing: options.memlock === undefined ? missing(counts.byIoctl, options.iommu) : [],
    unsupported: comparison.options.generator.excluded,
    known: knownDifferences,
    found: [...comparison.found.values()].sort((a, b) => b.times - a.times),
  };
}

async function runComparison(options: ConformanceOptions): Promise<number> {
  const counts = new Counts();
  const memlock = options.memlock === undefined ? undefined : options.memlock * 1024;
  const setup = { iommu: options.iommu, memlock };
  const simulated = simulatedPeer(counts.observe, setup);
  const excluded = unsupported(simulatedPeer());
  const linux = new VmPeer(options.timeout, setup);
  const end = Date.now() + options.seconds * 1000;
  const comparison = new Comparison(simulated, linux, counts, {
    generator: { seed: options.seed, excluded, only: options.only },
    sequences: options.sequences,
    goOn: () => Date.now() < end,
    suite: suite(excluded),
    shrink: options.shrink,
    progress: say,
  });
  try {
    await comparison.run();
  } finally {
    await linux.close();
  }
  const summary = { ...result(comparison, options), stalls: linux.stalls };
  if (options.json) print(JSON.stringify(summary));
  else printSummary(summary);
  const { differences, unsteady, missing: lacking } = summary;
  return differences + unsteady + lacking.length === 0 ? 0 : 1;
}

function printSummary(summary: ReturnType<typeof result> & { stalls: number }): void {
  const { sequences, calls, differences, unsteady, seed, found } = summary;
  print(`${countsTable(summary.byIoctl)}\n`);
  for (const each of found) print(`${foundText(each)}\n`);
  for (const { request, field, because } of summary.known)
    print(`not compared: ${request} ${field}: ${because}`);
  if (summary.missing.length > 0) print(`not seen: ${summary.missing.join(', ')}`);
  if (summary.stalls > 0) print(`${summary.stalls} rounds were asked again: the guest did not answer`);
  const alone = unsteady > 0 ? `, ${unsteady} more only among others` : '';
  print(`${sequences} sequences, ${calls} calls, ${differences} differences${alone}; seed ${seed}`);
}

/** A signal ends the guest too, and so does a reader that has seen enough. */
function exitOnSignal(): void {
  process.stdout.on('error', () => process.exit(141));
  process.once('SIGTERM', () => process.exit(143));
  process.once('SIGINT', () => process.exit(130));
}

async function main(): Promise<number> {
  exitOnSignal();
  try {
    const options = parseOptions(process.argv.slice(2), randomBytes(4).readUInt32LE(0));
    if (options === 'help') {
      process.stdout.write(HELP);
      return 0;
    }
    if (options.mode === 'compare') return await runComparison(options);
    if (options.mode === 'backend') return await runBackend(options);
    await serve(options.folder, linuxPeer());
    return 0;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    say(error.message);
    return 2;
  }
}

main().then(
  (status) => (process.exitCode = status),
  (error: unknown) => {
    say(error instanceof Error ? (error.stack ?? error.message) : String(error));
    process.exitCode = 2;
  },
);
