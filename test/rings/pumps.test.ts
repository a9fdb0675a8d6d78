/** Both pumps, with a file that behaves as iommufd's fault file: see scenarios.ts. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeLinux } from '../linux/has-addon';
import { openSoftware } from './software-rig';
import { ANSWERS } from './answers';
import { HOSTILE } from './hostile';
import { histories } from './histories';
import { SCENARIOS as WELL_MEANT, type Rig } from './scenarios';

const SCENARIOS = { ...WELL_MEANT, ...HOSTILE, ...ANSWERS, ...histories() };
const NAMES = Object.keys(SCENARIOS);

describe('the pump in JavaScript', () => {
  test.each(NAMES)('%s', async (name) => {
    const { run, writes } = SCENARIOS[name];
    const rigs: Rig[] = [];
    try {
      const done = run((options = {}) => {
        rigs.push(openSoftware(writes, options));
        return rigs[0];
      });
      await expect(done).resolves.toBeUndefined();
    } finally {
      for (const { consumer } of rigs) consumer.close();
    }
  });
});

const compiler = process.env['CC'] ?? 'cc';

describeLinux("the addon's pump", () => {
  let folder: string;
  let library: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'iommufd-fault-file-'));
    library = join(folder, 'fault-file.so');
    const source = join(__dirname, '../../../test/native/fault-file.c');
    const flags = ['-std=gnu11', '-O1', '-shared', '-fPIC', '-o', library, source, '-ldl'];
    const { status, stderr } = spawnSync(compiler, flags, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${compiler}: ${stderr}`);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each(NAMES)('%s', (name) => {
    const child = join(__dirname, '../native/children/pump.js');
    const { writes } = SCENARIOS[name];
    const { status, signal, stderr } = spawnSync(process.execPath, [child, name], {
      encoding: 'utf8',
      timeout: 60_000,
      env: {
        ...process.env,
        LD_PRELOAD: library,
        ...(writes !== undefined && { FAULT_FILE_WRITES: String(writes) }),
      },
    });
    expect({ end: status ?? signal, stderr }).toEqual({ end: 0, stderr: '' });
  });
});
