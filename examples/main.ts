/** `npm run examples [-- 4.1 …]`: the flows of the RFC, each printing its steps. On Linux in a VM: `npm run vm -- npm run examples`. */
import { FLOWS } from './flows';
import { runFlow } from './flows/stage';

async function main(wanted: readonly string[]): Promise<void> {
  const unknown = wanted.find((section) => !FLOWS.some((flow) => flow.section === section));
  if (unknown !== undefined) {
    console.error(`there is no flow ${unknown}; there are ${FLOWS.map(({ section }) => section).join(', ')}`);
    process.exitCode = 2;
    return;
  }
  for (const flow of FLOWS) {
    if (wanted.length > 0 && !wanted.includes(flow.section)) continue;
    await runFlow(flow, console.log);
  }
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
