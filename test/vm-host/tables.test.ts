// Starts a guest and walks the tables that Linux has made there with the model.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const SECONDS = 1000;

test.each([
  ['scalable', []],
  ['legacy', ['--legacy']],
])(
  'the model finds what Linux lists of its tables, and no more: %s mode',
  (_mode, options) => {
    const program = join(__dirname, '../../scripts/tables/main.js');
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--json', ...options], {
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const result = JSON.parse(stdout) as Record<string, number>;
    expect(result.mismatches).toBe(0);
    expect(result.interrupts).toBeGreaterThan(8);
    // edu, the NVMe disk, a virtio device; of edu alone more than 500 entries, two of them large pages.
    expect(result.slots).toBeGreaterThanOrEqual(9);
    expect(result.lines).toBeGreaterThan(550);
    expect(result.pages).toBeGreaterThan(result.lines + 1000);
  },
  120 * SECONDS,
);
