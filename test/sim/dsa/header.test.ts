/**
 * The accelerator's and its driver's numbers against Linux's headers. A C program that includes them is the judge:
 * <linux/idxd.h> where it is installed, drivers/dma/idxd/registers.h and include/linux/pci_ids.h where IDXD_SOURCE names
 * a folder with Linux's source (the kernel installs neither). The answers of that program for Linux 7.3.4 are recorded and
 * serve everywhere else; they must agree: IDXD_UPDATE_FIXTURES=1 rewrites them.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as reg from '../../../lib/sim/devices/dsa/registers';
import { driverFacts, type Facts, registerFacts, uapiFacts } from './header-facts';

const fixture = join(__dirname, '../../../../test/fixtures/idxd-7.3.4.json');
const folders = [process.env['IOMMUFD_UAPI_HEADERS'], '/usr/include'].filter((each) => each !== undefined);
const folder = folders.find((each) => existsSync(join(each, 'linux/idxd.h')));
const linux = process.env['IDXD_SOURCE'];
const compiler = process.env['CC'] ?? 'cc';

const uapiMissing =
  spawnSync(compiler, ['--version']).status !== 0
    ? 'there is no C compiler'
    : folder === undefined
      ? `there is no linux/idxd.h in ${folders.join(', ')}`
      : undefined;

/** Names that the capabilities need beyond ours. */
const CAPABILITIES: Record<string, readonly string[]> = {
  gen_cap_reg: [
    ...['block_on_fault', 'overlap_copy', 'cache_control_mem', 'cache_control_cache', 'cmd_cap'],
    ...['dest_readback', 'drain_readback', 'evl_support', 'batch_continuation'],
    ...['max_xfer_shift', 'max_batch_shift', 'max_ims_mult', 'config_en'],
  ],
  wq_cap_reg: [
    ...['total_wq_size', 'num_wqs', 'wqcfg_size', 'shared_mode', 'dedicated_mode', 'wq_ats_support'],
    ...['priority', 'occupancy', 'occupancy_int', 'op_config', 'wq_prs_support'],
  ],
  group_cap_reg: ['num_groups', 'total_rdbufs', 'rdbuf_ctrl', 'rdbuf_limit'],
  engine_cap_reg: ['num_engines'],
  offsets_reg: ['grpcfg', 'wqcfg', 'msix_perm', 'ims', 'perfmon'],
};

const named = (...facts: Facts[]) => [...new Set(facts.flatMap((each) => Object.keys(each)))];
const ofUapi = (name: string) => /^(DSA_|IDXD_OP_FLAG_|sizeof)|struct dsa_/.test(name);
const all = [
  ...named(uapiFacts, registerFacts, driverFacts),
  ...Object.entries(CAPABILITIES).flatMap(([union, fields]) =>
    fields.map((field) => `union ${union}.${field}`),
  ),
];

/** What a C compiler says: a number, or the bits of an object that are set when a field is all ones. */
function ask(names: readonly string[], includes: string): Facts {
  const lines = names.map((name) => {
    const [, type, field] = /^((?:struct|union) \w+)\.(.+)$/.exec(name) ?? [];
    return type === undefined ? `  VALUE("${name}", ${name});` : `  FIELD("${name}", ${type}, ${field});`;
  });
  const source = `#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
#include <linux/idxd.h>
${includes}
#define VALUE(name, value) printf("%s\\t%llx\\n", name, (unsigned long long)(value))
#define FIELD(name, type, field) do { type object; memset(&object, 0, sizeof object); object.field = -1; \\
  unsigned char bytes[sizeof object]; memcpy(bytes, &object, sizeof object); printf("%s\\t", name); \\
  for (int i = sizeof object; i-- > 0;) printf("%02x", bytes[i]); printf("\\n"); } while (0)
int main(void) {
${lines.join('\n')}
  return 0;
}
`;
  const work = mkdtempSync(join(tmpdir(), 'idxd-'));
  try {
    const program = join(work, 'facts');
    writeFileSync(`${program}.c`, source);
    execFileSync(compiler, ['-w', '-I', folder as string, '-o', program, `${program}.c`]);
    const answers = execFileSync(program, { encoding: 'utf8' }).trim().split('\n');
    return Object.fromEntries(
      answers.map((line) => line.split('\t')).map(([name, bits]) => [name, BigInt(`0x${bits}`).toString(16)]),
    );
  } finally {
    rmSync(work, { recursive: true });
  }
}

const both = () =>
  ask(
    all,
    ['drivers/dma/idxd/registers.h', 'include/linux/pci_ids.h']
      .map((name) => `#include "${join(linux ?? '', name)}"`)
      .join('\n'),
  );
if (!uapiMissing && linux && process.env['IDXD_UPDATE_FIXTURES'])
  writeFileSync(fixture, `${JSON.stringify(both(), null, 1)}\n`);
const recorded = JSON.parse(readFileSync(fixture, 'utf8')) as Facts;
const of = (facts: Facts, names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, facts[name]]));

test.each<[string, Facts]>([
  ['the uAPI header', uapiFacts],
  ['registers.h', registerFacts],
  ['both, the driver', driverFacts],
])('recorded answers of Linux 7.3.4: %s', (_name, facts) => {
  expect(facts).toEqual(of(recorded, Object.keys(facts)));
});

(uapiMissing ? test.skip : test)(
  `the uAPI header that is installed${uapiMissing ? ` (skipped: ${uapiMissing})` : ''}`,
  () => {
    for (const facts of [uapiFacts, driverFacts]) {
      const names = Object.keys(facts).filter(ofUapi);
      expect(of(facts, names)).toEqual(ask(names, ''));
    }
  },
);

const registersMissing = uapiMissing ?? (linux ? undefined : 'IDXD_SOURCE names no source of Linux');
(registersMissing ? test.skip : test)(
  `drivers/dma/idxd/registers.h${registersMissing ? ` (skipped: ${registersMissing})` : ''}`,
  () => {
    expect(recorded).toEqual(both());
  },
);

test('capabilities, taken apart with the names of registers.h', () => {
  const { GENCAP, WQCAP, GRPCAP, ENGCAP, OFFSETS } = reg.DSA_REGISTERS.definitions;
  const said = (union: string, value: number | bigint) => {
    let left = BigInt(value);
    const fields: Record<string, number> = {};
    for (const field of CAPABILITIES[union]) {
      const mask = BigInt(`0x${recorded[`union ${union}.${field}`]}`);
      const bits = BigInt(value) & mask;
      if (bits !== 0n) fields[field] = Number(bits / (mask & -mask));
      left &= ~mask;
    }
    // Nothing is said by bits that have no name.
    return { ...fields, left };
  };
  expect(said('gen_cap_reg', GENCAP.reset)).toEqual({
    ...{ block_on_fault: 1, overlap_copy: 1, cache_control_mem: 1, cmd_cap: 1, config_en: 1 },
    ...{ max_xfer_shift: reg.MAX_TRANSFER_SHIFT, max_batch_shift: reg.MAX_BATCH_SHIFT, left: 0n },
  });
  expect(said('wq_cap_reg', WQCAP.reset)).toEqual({
    ...{ total_wq_size: reg.TOTAL_ENTRIES, num_wqs: reg.WORK_QUEUES, shared_mode: 1, dedicated_mode: 1 },
    ...{ wq_ats_support: 1, priority: 1, occupancy: 1, wq_prs_support: 1, left: 0n },
  });
  expect(said('group_cap_reg', GRPCAP.reset)).toEqual({ num_groups: reg.GROUPS, left: 0n });
  expect(said('engine_cap_reg', ENGCAP.reset)).toEqual({ num_engines: reg.ENGINES, left: 0n });
  expect(said('offsets_reg', OFFSETS.reset)).toEqual({
    ...{ grpcfg: reg.GROUP_TABLE / 256, wqcfg: reg.WORK_QUEUE_TABLE / 256 },
    ...{ msix_perm: reg.PERMISSION_TABLE / 256, left: 0n },
  });
});
