/** Processes of one machine: descriptors that go from one to the other, memory that both have, /proc. */
import { PROT_READ, type DeviceMapping } from '../../../lib/kernel';
import { Machine } from '../../../lib/sim/machine';
import { errno } from '../../../lib/uapi';
import { code, PAGE } from './bench';

test('a descriptor can be given to another process, and is one for the same file', () => {
  const machine = new Machine();
  const [one, two] = [machine.createProcess(), machine.createProcess({ uid: 1000 })];
  const events = one.eventfd(5, 0);
  const theirs = one.sendDescriptor(events, two);
  expect(theirs).toBe(3);
  expect(two.file(theirs)).toBe(one.file(events));
  one.close(events);
  const bytes = new Uint8Array(8);
  expect(two.read(theirs, bytes)).toBe(8);
  expect(bytes[0]).toBe(5);
  expect(code(one.sendDescriptor(events, two))).toBe('EBADF');
  expect(code(one.sendDescriptor(-1, two))).toBe('EBADF');
  expect(() => one.sendDescriptor(0.5, two)).toThrow(RangeError);
  expect(() => one.sendDescriptor(0, new Machine().createProcess())).toThrow(RangeError);
  while (two.eventfd(0, 0) >= 0);
  expect(one.sendDescriptor(0, two)).toBe(-errno.EMFILE);
});

test('a memfd is the same memory for both, also after the first is gone', () => {
  const machine = new Machine();
  const [one, two] = [machine.createProcess(), machine.createProcess()];
  const memory = one.allocate(2 * PAGE, { memfd: true });
  if (typeof memory === 'number') throw new Error('allocate');
  const theirs = one.sendDescriptor(memory.fd, two);
  const mapping = two.mmap(theirs, PAGE, PAGE, PROT_READ) as DeviceMapping;
  expect(two.pwrite(theirs, Uint8Array.of(1, 2, 3), PAGE)).toBe(3);
  expect([...memory.bytes.subarray(PAGE, PAGE + 3)]).toEqual([1, 2, 3]);
  memory.bytes[PAGE] = 9;
  memory.free();
  one.exit();
  expect(mapping.load(0, 4)).toBe(0x30209);
  const bytes = new Uint8Array(2);
  expect(two.pread(theirs, bytes, PAGE)).toBe(2);
  expect([...bytes]).toEqual([9, 2]);
});

test('/proc shows a process itself', () => {
  const machine = new Machine();
  const [one, two] = [machine.createProcess(), machine.createProcess({ uid: 7 })];
  expect(one.readlink('/proc/self')).toBe(String(one.pid));
  expect(two.pid).not.toBe(one.pid);
  expect(two.readFile('/proc/self/status')).toBe(
    `Pid:\t${two.pid}\nUid:\t7\t7\t7\t7\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nCapEff:\t0000000000000000\n`,
  );
  expect(one.readFile('/proc/self/status')).toContain('CapEff:\t0000000001024000\n');
  expect(two.readFile('/proc/self/limits')).toContain('\nMax locked memory         8388608 ');
  const unlimited = machine.createProcess({ uid: 7, memlock: Infinity });
  expect(unlimited.readFile('/proc/self/limits')).toContain('Max locked memory         unlimited ');
  expect(one.readFile('/proc/sys/kernel/osrelease')).toBe('7.3.0-simulated\n');
  expect(code(Number(one.readFile(`/proc/${two.pid}/status`)))).toBe('ENOENT');
  const fd = two.open('/proc/self/status', 0);
  expect(two.read(fd, new Uint8Array(4))).toBe(4);
  expect(one.readdir('/')).toEqual(['dev', 'proc', 'sys']);
});
