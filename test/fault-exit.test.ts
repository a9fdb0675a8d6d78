/** What keeps a process alive, and what does not: each in a process of its own. */
import { spawnSync } from 'node:child_process';

const LIB = JSON.stringify(require.resolve('../lib'));
const SIM = JSON.stringify(require.resolve('../lib/sim'));
const BEGIN = `
  const { Iommu } = require(${LIB});
  const { Machine } = require(${SIM});
  const iommu = Iommu.open({ backend: new Machine({ iommu: 'mock' }) });
  const device = iommu.createMockDevice({ cookie: 1n });
  const queue = iommu.createFaultQueue({ limit: 1 });
  device.attach(iommu.createAddressSpace({ faults: queue }));
  const raise = (count) => { for (let i = 0; i < count; i++) device.triggerFault({ address: 4096 * i, group: i }); };`;

/** Whether the program was still there after a second. */
function stays(program: string): boolean {
  const { status, error, stderr } = spawnSync(process.execPath, ['-e', BEGIN + program], {
    encoding: 'utf8',
    timeout: 2000,
  });
  if (error && 'code' in error && error.code === 'ETIMEDOUT') return true;
  expect([status, stderr]).toEqual([0, '']);
  return false;
}

test.each([
  ['a consumer’s side that was handed over', 'queue.share();'],
  ['a wait that has ended', 'queue.next({ timeout: 1 }).catch(() => {}); raise(1);'],
  ['a listener that was taken off', "const f = () => {}; queue.on('record', f); queue.off('record', f);"],
  ["a listener for 'error' alone", "queue.on('error', () => {});"],
])('%s keeps no process', (_, program) => expect(stays(program)).toBe(false));

test.each([
  ['a listener', "queue.on('record', () => {});"],
  ['a listener where the limit is reached', "queue.on('record', () => {}); raise(2);"],
  ['a wait where the limit is reached', 'raise(2); queue.drain(); queue.next();'],
])('%s keeps it', (_, program) => expect(stays(program)).toBe(true));
