/** Ways for a process to end while watches, memory and mappings are open. The argument says which. */
import { needAddon } from '../../linux/has-addon';

const addon = needAddon();
const POLLIN = 1;
const way = process.argv[2];

const fd = addon.eventfd(way === 'idle' ? 0 : 1, 0);
const memory = addon.allocate(addon.pageSize, false, true);
if (typeof memory === 'number') throw new Error(`allocate: ${memory}`);
addon.mmap(memory.fd, 0, addon.pageSize, 3);

function callback(): void {
  console.log('called');
  if (way === 'exit') process.exit(7);
  if (way === 'signal') process.kill(process.pid, 'SIGTERM');
  addon.closeWatch(watch);
  throw new Error('thrown by the callback');
}
const watch = addon.watch(fd, POLLIN, callback);

if (way === 'exit now') process.exit(7);
if (way === 'idle') addon.unrefWatch(watch);
if (way === 'caught') process.on('uncaughtException', (error) => console.log(`caught: ${error.message}`));
