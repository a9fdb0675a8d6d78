/** lib/rings/layout.ts against native/ring.h, which says the same to C. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as layout from '../../lib/rings/layout';
import { iommu_hwpt_pgfault } from '../../lib/uapi';

const HEADER = join(__dirname, '../../../native/ring.h');
const compiler = process.env['CC'] ?? 'cc';
const hasCompiler = spawnSync(compiler, ['--version']).status === 0;

/** C's names for the fields, by ours. */
const HEADER_FIELDS: Record<keyof typeof layout.ring, string> = {
  magic: 'magic',
  version: 'version',
  kind: 'kind',
  recordBytes: 'record_bytes',
  recordCount: 'record_count',
  responseCount: 'response_count',
  records: 'records',
  responses: 'responses',
  length: 'length',
  sourceBytes: 'source_bytes',
  identity: 'identity',
  partial: 'partial',
  head: 'head',
  dropped: 'dropped',
  error: 'error',
  wakeups: 'wakeups',
  tail: 'tail',
  consumerWaiting: 'consumer_waiting',
  responseHead: 'response_head',
  responseTail: 'response_tail',
  refused: 'refused',
  pumpWaiting: 'pump_waiting',
};
const FAULT_FIELDS: Record<keyof typeof layout.faultRecord, string> = {
  flags: 'flags',
  devId: 'dev_id',
  pasid: 'pasid',
  group: 'grpid',
  permissions: 'perm',
  address: 'addr',
  length: 'length',
  groupCookie: 'group_cookie',
  cookie: 'device_cookie',
  ioasid: 'ioasid',
  generation: 'generation',
};
const RESPONSE_FIELDS: Record<keyof typeof layout.response, string> = {
  groupCookie: 'group_cookie',
  code: 'code',
  generation: 'generation',
};
/** C expressions, and what they must be. */
const CONSTANTS: Record<string, number> = {
  RING_MAGIC: layout.RING_MAGIC,
  RING_VERSION: layout.RING_VERSION,
  RING_FAULTS: layout.RING_FAULTS,
  RING_EVENTS: layout.RING_EVENTS,
  RING_HEADER_BYTES: layout.HEADER_BYTES,
  RING_PUMP_WAITS: layout.PUMP_WAITS,
  RING_PUMP_WAITS_FOR_ROOM: layout.PUMP_WAITS_FOR_ROOM,
  'sizeof(struct ring_fault)': layout.FAULT_RECORD_BYTES,
  'offsetof(struct ring_fault, timestamp)': layout.FAULT_RECORD_BYTES - layout.TIMESTAMP_BYTES,
  'offsetof(struct ring_fault, device_cookie)': layout.FAULT_SOURCE_BYTES,
  'sizeof(struct ring_response)': layout.RESPONSE_BYTES,
};

function expected(): Map<string, number> {
  const all = new Map(Object.entries(CONSTANTS));
  const add = (struct: string, names: Record<string, string>, offsets: Record<string, number>) => {
    for (const [ours, theirs] of Object.entries(names))
      all.set(`offsetof(struct ${struct}, ${theirs})`, offsets[ours]);
  };
  add('ring_header', HEADER_FIELDS, layout.ring);
  add('ring_fault', FAULT_FIELDS, layout.faultRecord);
  add('ring_response', RESPONSE_FIELDS, layout.response);
  return all;
}

(hasCompiler ? test : test.skip)('C has every field where we have it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-layout-'));
  try {
    const [source, program] = [join(folder, 'offsets.c'), join(folder, 'offsets')];
    const expressions = [...expected().keys()];
    const lines = expressions.map((expression) => `printf("%lu\\n", (unsigned long)(${expression}));`);
    writeFileSync(
      source,
      `#include "${HEADER}"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) { ${lines.join('\n')} }\n`,
    );
    const built = spawnSync(compiler, ['-Wall', '-Werror', '-o', program, source], { encoding: 'utf8' });
    expect(built).toMatchObject({ status: 0, stderr: '' });
    const answers = spawnSync(program, { encoding: 'utf8' }).stdout.trim().split('\n').map(Number);
    expect(new Map(expressions.map((expression, i) => [expression, answers[i]]))).toEqual(expected());
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a fault record begins with the kernel's", () => {
  const { offsets, size } = iommu_hwpt_pgfault;
  const { flags, devId, pasid, group, permissions, address, length, groupCookie } = layout.faultRecord;
  expect({ flags, dev_id: devId, pasid, grpid: group, perm: permissions }).toEqual({
    flags: offsets.flags,
    dev_id: offsets.dev_id,
    pasid: offsets.pasid,
    grpid: offsets.grpid,
    perm: offsets.perm,
  });
  expect([address, length, groupCookie, size]).toEqual([
    offsets.addr,
    offsets.length,
    offsets.cookie,
    layout.FAULT_SOURCE_BYTES,
  ]);
});

test('what one side writes often has a cache line of its own', () => {
  const { head, tail, consumerWaiting, responseHead, responseTail, pumpWaiting } = layout.ring;
  const lines = [head, tail, consumerWaiting, responseHead, responseTail, pumpWaiting].map((offset) =>
    Math.trunc(offset / layout.CACHE_LINE),
  );
  expect(new Set(lines).size).toBe(lines.length);
});

describe('a header', () => {
  const shape = { kind: layout.RING_EVENTS, sourceBytes: 100, records: 8, responses: 0 } as const;
  const words = () => {
    const header = new Int32Array(layout.ringBytes(shape) / 4);
    layout.writeHeader(header, shape, 2 ** 32 - 1);
    return header;
  };

  test('says the shape of its ring', () => {
    expect(layout.recordBytes(shape)).toBe(128);
    expect(layout.ringBytes(shape)).toBe(4096 + 8 * 128);
    expect(layout.readHeader(words(), 4096 + 8 * 128)).toEqual(shape);
    expect(words()[layout.ring.head >> 2]).toBe(-1);
  });

  test('is refused where it makes no sense', () => {
    const read = (offset: number, value: number, length = layout.ringBytes(shape)) => {
      const header = words();
      header[offset >> 2] = value;
      return () => layout.readHeader(header, length);
    };
    expect(read(layout.ring.magic, 0)).toThrow('this memory holds no ring');
    expect(read(layout.ring.version, 2)).toThrow('the ring has version 2; this package reads 1');
    expect(read(layout.ring.recordBytes, 64)).toThrow(RangeError);
    expect(read(layout.ring.recordCount, 16)).toThrow(RangeError);
    expect(read(layout.ring.kind, 3)).toThrow("the ring's header says kind 3");
    for (const count of [0, 3, 6, 7, 2 ** 32 - 1])
      expect(read(layout.ring.recordCount, count)).toThrow('no powers of two');
    expect(read(layout.ring.recordCount, 4)).not.toThrow();
    for (const count of [3, 100])
      expect(read(layout.ring.responseCount, count, 2 ** 20)).toThrow('no powers');
    expect(read(layout.ring.responseCount, 4, 2 ** 20)).not.toThrow();
    expect(read(layout.ring.magic, layout.RING_MAGIC, 4096)).toThrow(RangeError);
  });
});
