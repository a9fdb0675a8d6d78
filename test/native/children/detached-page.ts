/** The call page, its buffer detached: the memory stays the addon's, and what was described before is not repeated. */
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';
import { CALL_PAGE_BYTES, CALL_STRUCTS_AT } from '../../../lib/kernel';
import { LinuxKernel } from '../../../lib/linux/kernel';
import { needAddon } from '../../linux/has-addon';

/** These clear and set close-on-exec, which a descriptor's flags show. */
const FIONCLEX = 0x5450;
const FIOCLEX = 0x5451;
const CLOEXEC = 0o2000000;

const addon = needAddon();
assert.throws(() => addon.runCalls(), /TypeError: there is no call page/);

const kernel = new LinuxKernel();
const page = kernel.callPage();
const fd = kernel.eventfd(0, 0);
const closesOnExec = () => {
  const [, flags] = /flags:\t(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))!;
  return (parseInt(flags, 8) & CLOEXEC) !== 0;
};
assert.strictEqual(addon.callPage(), page.buffer);
assert.strictEqual(page.buffer.byteLength, CALL_PAGE_BYTES);
assert.strictEqual(page.ioctl(fd, FIONCLEX, CALL_STRUCTS_AT), 0);
assert(!closesOnExec());
assert.strictEqual(kernel.ioctl(fd, FIOCLEX), 0);
assert(closesOnExec());

// As ArrayBuffer.prototype.transfer does, which this Node may lack.
setFlagsFromString('--allow-natives-syntax');
runInThisContext('(buffer) => %ArrayBufferDetach(buffer)')(page.buffer);
assert.strictEqual(page.buffer.byteLength, 0);
for (const call of [() => page.ioctl(fd, FIONCLEX, CALL_STRUCTS_AT), () => page.run(1), () => page.result(0)])
  assert.throws(call, /TypeError: the call page was detached/);
addon.runCalls();
globalThis.gc?.();
addon.runCalls();
assert(closesOnExec(), 'a call was made again');
assert.throws(() => new LinuxKernel().callPage().ioctl(fd, FIONCLEX, CALL_STRUCTS_AT), TypeError);
console.log('done');
