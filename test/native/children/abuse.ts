/** Calls every function of the addon with random values, good and bad: it may answer or throw, never crash. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ringBytes, RING_FAULTS } from '../../../lib/rings/layout';
import { Ring } from '../../../lib/rings/ring';
import { needAddon } from '../../linux/has-addon';

const addon = needAddon();
const CALLS = 60_000;
const seed = Number(process.argv[2]);

// mulberry32
let state = seed;
function random(below: number): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % below;
}

function detached(): Uint8Array {
  const bytes = new Uint8Array(64);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

/** A view whose resizable buffer has shrunk under it. */
function outOfBounds(): Uint8Array {
  const buffer: ArrayBuffer = Reflect.construct(ArrayBuffer, [64, { maxByteLength: 128 }]);
  const bytes = new Uint8Array(buffer, 32, 16);
  Reflect.apply(Reflect.get(buffer, 'resize'), buffer, [8]);
  return bytes;
}

const target = addon.allocate(4 * addon.pageSize, false, true);
if (typeof target === 'number') throw new Error(`allocate: ${target}`);
// Descriptors that are open for other things, such as the event loop's own, are left alone.
// (0o4000 is EFD_NONBLOCK: nothing here may wait.)
const events = addon.eventfd(1, 0o4000);
const fds = [target.fd, target.fd, events, events, -1, 0x7fffffff];
addon.mmap(target.fd, 0, addon.pageSize, 3);
addon.watch(events, 1, () => undefined);
// A ring, whose pump 0 stays; others come and go, and what the abuse leaves in it is any consumer's nonsense.
const shape = { kind: RING_FAULTS, sourceBytes: 40, records: 16, responses: 16 } as const;
const rings = addon.allocate(ringBytes(shape), false, true);
if (typeof rings === 'number') throw new Error(`allocate: ${rings}`);
Ring.create(rings.buffer, shape);
const pumped = addon.eventfd(1, 0o4000);
addon.pump(pumped, rings.handle, 16);
const views = [
  new Uint8Array(16),
  Buffer.alloc(5000),
  new Uint8Array(0),
  new Uint8Array(new SharedArrayBuffer(8)),
  new Uint8Array(target.buffer, 4096),
  detached(),
  outOfBounds(),
];
const numbers = [
  0,
  1,
  2,
  3,
  4,
  8,
  4095,
  4096,
  8192,
  0x541b,
  0x3b81,
  0xffff,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 40,
  2 ** 47,
];
const junk: unknown[] = [
  ...[undefined, null, true, false, NaN, Infinity, -Infinity, -1, 1.5, 2 ** 53, -(2 ** 53), 1e308],
  ...[0n, 1n, -1n, 2n ** 64n, '', '/', '\0', 'x'.repeat(10_000), Symbol('s'), {}, [], () => undefined],
  ...[new Float64Array(4), new BigInt64Array(1), new Uint8ClampedArray(4), new Uint16Array(3)],
  ...[
    new DataView(new ArrayBuffer(4)),
    new ArrayBuffer(16),
    new SharedArrayBuffer(16),
    target.buffer,
    target,
  ],
  ...[
    new Date(0),
    new Proxy(new Uint8Array(8), {}),
    Object.create(Uint8Array.prototype),
    'length',
    /x/,
    new Map(),
  ],
];

const pick = <T>(from: readonly T[]): T => from[random(from.length)];
const kinds: Record<string, () => unknown> = {
  fd: () => pick(fds),
  closable: () => pick([-1, 0x7fffffff, -(2 ** 31)]),
  bytes: () => pick(views),
  number: () => pick(numbers),
  path: () => pick(['/dev/null', '/nonexistent', '/proc/self/comm', '']),
  bool: () => pick([true, false]),
  pumped: () => pumped,
  ring: () => rings.handle,
  pump: () => random(3),
  // Handles 0 and 1 of memory and 0 of the others stay, so that the descriptors above do.
  handle: () => 2 + random(4),
  closing: () => 1 + random(4),
  offset: () => 4096 * random(5),
  inside: () => pick([0, 1, 2, 4, 8, 4092, 4095, 4096]),
  width: () => pick([1, 2, 3, 4, 8]),
  protection: () => 1 + random(3),
  block: () => new Uint8Array(64),
  wide: () => pick([0n, 1n, 2n ** 64n - 1n]),
  callback: () => () => undefined,
  buffer: () => target.buffer,
};

const signatures: Record<string, string[]> = {
  open: ['path', 'number'],
  close: ['closable'],
  ioctl: ['fd', 'number', 'bytes'],
  callPage: [],
  runCalls: [],
  read: ['fd', 'bytes'],
  write: ['fd', 'bytes'],
  pread: ['fd', 'bytes', 'number'],
  pwrite: ['fd', 'bytes', 'number'],
  poll: ['fd', 'number'],
  eventfd: ['number', 'number'],
  adopt: ['closable'],
  addressOf: ['bytes'],
  mapMemory: ['fd', 'number'],
  pump: ['pumped', 'ring', 'number'],
  runPump: ['pump'],
  passPump: ['pump', 'bool'],
  pausePump: ['pump', 'bool'],
  fillSlot: ['pump', 'number', 'number', 'number', 'wide'],
  emptySlot: ['pump', 'number', 'number'],
  isCurrentGroup: ['pump', 'number', 'number'],
  closePump: ['closing'],
  allocate: ['number', 'bool', 'bool'],
  free: ['handle', 'buffer'],
  release: ['handle'],
  mmap: ['fd', 'offset', 'number', 'protection'],
  load: ['closing', 'inside', 'width'],
  load64: ['closing', 'inside'],
  store: ['closing', 'inside', 'width', 'number'],
  store64: ['closing', 'inside', 'wide'],
  storeBlock: ['closing', 'inside', 'block'],
  unmap: ['closing'],
  watch: ['fd', 'number', 'callback'],
  watchCounter: ['pumped', 'callback'],
  duplicate: ['fd'],
  closeWatch: ['closing'],
  refWatch: ['closing'],
  unrefWatch: ['closing'],
};

const functions = Object.entries(addon).filter(([, value]) => typeof value === 'function');
const names = functions.map(([name]) => name);
if (names.some((name) => !(name in signatures)) || names.length !== Object.keys(signatures).length)
  throw new Error(`the addon exports ${names.join(', ')}`);

const page = addon.callPage();
if (typeof page === 'number') throw new Error(`callPage: ${page}`);
const pageWords = new Int32Array(page);

/** Calls as no program would describe them, and now and then as one would. */
function describeCalls(): void {
  const calls = random(4);
  pageWords[0] = random(20) === 0 ? pick(numbers) : calls;
  for (let call = 0; call < calls; call++) {
    const offset = random(4) === 0 ? pick(numbers) : 4096 + 8 * random(1536);
    pageWords.set([pick(fds), pick(numbers), offset, pick(numbers)], 4 + 4 * call);
    pageWords[offset >> 2] = random(4) === 0 ? pick(numbers) : random(64);
  }
}

const counts: Record<string, number> = {};
const count = (what: string) => (counts[what] = (counts[what] ?? 0) + 1);

function callOne(): void {
  const [name, fn] = functions[random(functions.length)];
  const values = signatures[name].map((kind) =>
    random(12) === 0 && kind !== 'closable' ? pick(junk) : kinds[kind](),
  );
  if (random(20) === 0) values.length = random(values.length + 1);
  if (random(20) === 0) values.push(pick(junk), pick(junk));
  if (name === 'runCalls') describeCalls();
  try {
    const result: unknown = Reflect.apply(fn, pick([undefined, addon, target]), values);
    count(typeof result === 'number' && result < 0 ? 'failed' : name);
    // Made here, so closed here: the random calls close nothing that is open.
    if ((name === 'open' || name === 'eventfd') && Number(result) >= 0) addon.close(Number(result));
  } catch (error) {
    const expected = error instanceof TypeError || error instanceof RangeError;
    if (!expected && Reflect.get(Object(error), 'code') !== 'ERR_BUFFER_TOO_LARGE')
      throw new Error(`seed ${seed}: ${name} threw ${String(error)}`, { cause: error });
    count('refused');
  }
}

async function main(): Promise<void> {
  // Files that open() is made to make are made here.
  const folder = mkdtempSync(join(tmpdir(), 'abuse-'));
  process.chdir(folder);
  for (let call = 0; call < CALLS; call++) {
    callOne();
    // Turns of the event loop, for callbacks, closing watches and finalizers.
    if (call % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  console.log(JSON.stringify(counts));
  rmSync(folder, { recursive: true });
  process.exit(0);
}

void main();
