/** The flows of the RFC, section 4, as the programs in `examples` do them. */
import { FLOWS } from '../../examples/flows';
import { runFlow } from '../../examples/flows/stage';

test.each(FLOWS.map((flow) => [flow.section, flow] as const))('flow %s', async (section, flow) => {
  const lines: string[] = [];
  await runFlow(flow, (line) => lines.push(line));
  expect(lines[0]).toContain(section);
  // Each says at least three steps and what came of them.
  expect(lines.filter((line) => /^ {2}\d+\. /.test(line)).length).toBeGreaterThanOrEqual(3);
  expect(lines.some((line) => line.startsWith('     - '))).toBe(true);
});
