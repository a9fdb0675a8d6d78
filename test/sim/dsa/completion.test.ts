/** Which completion records the driver believes: what the device writes, and with one bit flipped. */
import { decode } from '../../../examples/drivers/dsa/completion';
import { OPCODE, type Operation, operations } from '../../../examples/drivers/dsa/descriptor';
import { encodeRecord, type Outcome, STATUS } from '../../../lib/sim/devices/dsa/descriptor';

const FROM = 0x1_0000n;
const TO = 0x9_0000n;
const SIZE = 10_000;
const compare = operations.compare(FROM, TO, SIZE);
const fault = { status: STATUS.PAGE_FAULT, completed: 4096 };

const genuine: [string, Operation, Outcome][] = [
  ['a move', operations.move(FROM, TO, SIZE), { status: STATUS.SUCCESS }],
  ['a fill', operations.fill(TO, SIZE, 5n), { status: STATUS.SUCCESS }],
  ['a drain', operations.drain(), { status: STATUS.SUCCESS }],
  ['a CRC', operations.crc(FROM, SIZE), { status: STATUS.SUCCESS, crc: 0x1234_5678 }],
  ['a batch', operations.batch(FROM, 5), { status: STATUS.SUCCESS, completed: 5 }],
  ['a batch in part', operations.batch(FROM, 5), { status: STATUS.BATCH_FAILED, completed: 3, result: 1 }],
  [
    'a batch without its list',
    operations.batch(FROM, 5),
    { status: STATUS.BATCH_PAGE_FAULT, completed: 0, faultAddress: FROM },
  ],
  ['all equal', compare, { status: STATUS.SUCCESS }],
  ['a difference', compare, { status: STATUS.FALSE_PREDICATE, result: 1, completed: 700 }],
  ['a difference at the start', compare, { status: STATUS.FALSE_PREDICATE, result: 1, completed: 0 }],
  ['a read’s page', operations.move(FROM, TO, SIZE), { ...fault, faultAddress: FROM + 4096n }],
  ['a write’s page', operations.move(FROM, TO, SIZE), { ...fault, faultAddress: TO + 4096n, write: true }],
  [
    'a page of a copy from its end',
    operations.move(FROM, FROM + 8n, SIZE),
    {
      ...{ ...fault, result: 1, faultAddress: FROM + 4096n },
    },
  ],
  ['a page to fill', operations.fill(TO, SIZE, 5n), { ...fault, faultAddress: TO + 4096n, write: true }],
  ['a page of a CRC', operations.crc(FROM, SIZE), { ...fault, faultAddress: FROM + 4096n, crc: 77 }],
  ['no such flags', compare, { status: STATUS.INVALID_FLAGS, invalidFlags: 0x80 }],
  ['an access that is refused', compare, { status: STATUS.HARDWARE, completed: 5, faultAddress: FROM }],
];

test.each(genuine)('%s: what the device writes is believed', (_name, operation, outcome) => {
  const { status, completed = 0, result = 0, write = false, faultAddress = 0n } = outcome;
  expect(decode(operation, encodeRecord(outcome))).toMatchObject({
    ...{ status, completed, result, write, address: faultAddress, flaw: undefined },
  });
});

/** What a record makes the driver do: 'done' with a result, go on somewhere, or not believe it. */
function meaning(operation: Operation, record: Uint8Array): string {
  const completion = decode(operation, record);
  if (!completion) return 'nothing yet';
  if (completion.flaw !== undefined) return 'flaw';
  const { status, result, completed } = completion;
  const done = status === STATUS.SUCCESS || status === STATUS.FALSE_PREDICATE;
  return done ? `done, ${result ? `different at ${completed}` : 'all'}` : 'not done';
}

function flips(operation: Operation, outcome: Outcome): Set<string> {
  return new Set(
    Array.from({ length: 256 }, (_, bit) => {
      const record = encodeRecord(outcome);
      record[bit >>> 3] ^= 1 << (bit & 7);
      return meaning(operation, record);
    }),
  );
}

const dones = genuine.filter(([, , { status, result }]) => status === STATUS.SUCCESS && !result);
test.each(dones)('%s: no flipped bit makes something else of it', (_name, operation, outcome) => {
  const whole = meaning(operation, encodeRecord(outcome));
  expect(whole).toBe('done, all');
  const ends = flips(operation, outcome);
  // Of a batch that has failed in part the descriptors' own records tell.
  if (operation.opcode === OPCODE.BATCH) ends.delete('not done');
  expect([...ends].filter((end) => ![whole, 'flaw', 'nothing yet'].includes(end))).toEqual([]);
  expect(ends).toContain('flaw');
});

const others = genuine.filter(([, , { status }]) => status !== STATUS.SUCCESS);
test.each(others)('%s: no flipped bit makes a success of it', (_name, operation, outcome) => {
  expect(flips(operation, outcome)).not.toContain('done, all');
});

test.each<[string, Operation, Outcome]>([
  ['a page that it does not need', operations.move(FROM, TO, SIZE), { ...fault, faultAddress: 0x5000n }],
  [
    'a write to what it reads',
    operations.move(FROM, TO, SIZE),
    { ...fault, faultAddress: FROM, write: true },
  ],
  ['more bytes than it has', operations.fill(TO, 8, 1n), { status: STATUS.HARDWARE, completed: 9 }],
  [
    'a page missing at its end',
    operations.fill(TO, 8, 1n),
    {
      ...{ status: STATUS.PAGE_FAULT, completed: 8, faultAddress: TO, write: true },
    },
  ],
  ['a part, as a success', operations.fill(TO, 8, 1n), { status: STATUS.SUCCESS, completed: 4 }],
  ['a batch’s status', compare, { status: STATUS.BATCH_FAILED }],
  ['a difference behind its end', compare, { status: STATUS.FALSE_PREDICATE, result: 1, completed: SIZE }],
  ['a difference, and a success', compare, { status: STATUS.SUCCESS, result: 1, completed: 5 }],
  ['a status that there is not', compare, { status: 0x60 }],
])('not believed: %s', (_name, operation, outcome) => {
  expect(decode(operation, encodeRecord(outcome))?.flaw).toBeDefined();
});
