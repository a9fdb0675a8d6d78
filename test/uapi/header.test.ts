/**
 * Every struct, constant and ioctl number of lib/uapi against the kernel's own header.
 *
 * With IOMMUFD_UAPI_HEADERS naming a folder that holds linux/iommufd.h and linux/vfio.h, a C program compiled
 * against them is the judge; the committed answers of that program for Linux 7.3.4 serve everywhere else
 * (and must agree with it: IOMMUFD_UPDATE_FIXTURES=1 rewrites them).
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as iommufd from '../../lib/uapi/iommufd';
import { iommufdIoctls } from '../../lib/uapi/iommufd-ioctls';
import type { Struct } from '../../lib/uapi/layout';
import * as vfio from '../../lib/uapi/vfio';
import * as vfioCapabilities from '../../lib/uapi/vfio-capabilities';
import * as vfioFeatures from '../../lib/uapi/vfio-features';
import * as type1 from '../../lib/uapi/vfio-type1';

type Facts = Record<string, number>;

const headers = process.env.IOMMUFD_UAPI_HEADERS;
const fixture = join(__dirname, '../../../test/fixtures/uapi-7.3.4.json');

const isStruct = (value: unknown): value is Struct =>
  typeof value === 'object' && value !== null && 'offsets' in value;
const modules = [iommufd, vfio, vfioCapabilities, vfioFeatures, type1];
const exported = modules.flatMap((each): [string, unknown][] => Object.entries(each));
const structs = exported.map(([, value]) => value).filter(isStruct);
const constants = exported.filter(([name, value]) => typeof value === 'number' && name !== 'VFIO_TYPE');
const ioctls = [...iommufdIoctls, ...vfio.vfioIoctls, ...type1.vfioContainerIoctls, ...type1.vfioGroupIoctls];

/** What our layouts say. */
function ours(): Facts {
  const facts: Facts = {};
  for (const struct of structs) {
    facts[`sizeof ${struct.name}`] = struct.size;
    for (const [field, offset] of Object.entries<number>(struct.offsets))
      facts[`offsetof ${struct.name}.${field}`] = offset;
  }
  for (const [name, value] of constants) facts[name] = value as number;
  for (const { name, request } of ioctls) facts[name] = request;
  return facts;
}

/** What a C compiler says about the same names. */
function compilers(folder: string): Facts {
  const names = Object.keys(ours());
  const expression = (name: string) => {
    const [operator, operand] = name.split(' ');
    if (operator === 'sizeof') return `sizeof(struct ${operand})`;
    if (operator === 'offsetof') return `offsetof(struct ${operand.replace('.', ', ')})`;
    // Fields are unsigned, also where the header writes a bit or −1 as an int.
    return `(__u32)(${name})`;
  };
  const lines = names.map(
    (name) => `  printf("%s\\t%llu\\n", "${name}", (unsigned long long)(${expression(name)}));`,
  );
  const source = `#include <stddef.h>
#include <stdio.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
int main(void) {
${lines.join('\n')}
  return 0;
}
`;
  const work = mkdtempSync(join(tmpdir(), 'iommufd-uapi-'));
  try {
    const program = join(work, 'facts');
    writeFileSync(`${program}.c`, source);
    // Headers older than the kernel's own lack the attribute macro.
    execFileSync('cc', ['-D__counted_by(x)=', '-I', folder, '-o', program, `${program}.c`]);
    const output = execFileSync(program, { encoding: 'utf8' });
    return Object.fromEntries(
      output
        .trim()
        .split('\n')
        .map((line) => line.split('\t'))
        .map(([name, value]) => [name, Number(value)]),
    );
  } finally {
    rmSync(work, { recursive: true });
  }
}

describe('uAPI layouts', () => {
  if (headers && process.env.IOMMUFD_UPDATE_FIXTURES)
    writeFileSync(fixture, `${JSON.stringify(compilers(headers), null, 1)}\n`);

  test('agree with the recorded header of Linux 7.3.4', () => {
    expect(ours()).toEqual(JSON.parse(readFileSync(fixture, 'utf8')));
  });

  (headers ? test : test.skip)('agree with the header that IOMMUFD_UAPI_HEADERS names', () => {
    expect(ours()).toEqual(compilers(headers as string));
  });

  test('cover every ioctl of iommufd, 0x80 to 0x95', () => {
    expect(iommufdIoctls.map(({ request }) => request)).toEqual(
      Array.from({ length: 22 }, (_, i) => 0x3b80 + i),
    );
  });

  test('cover every ioctl of a VFIO device, VFIO_BASE + 7 to + 21', () => {
    expect(vfio.vfioIoctls.map(({ request }) => request)).toEqual(
      Array.from({ length: 15 }, (_, i) => 0x3b00 + vfio.VFIO_BASE + 7 + i),
    );
  });

  test('minimum sizes are those of the kernel where they are not the whole struct', () => {
    const short = iommufdIoctls.filter(({ struct, minimumSize }) => struct.size !== minimumSize);
    expect(short.map(({ name, struct, minimumSize }) => [name, minimumSize, struct.size])).toEqual([
      ['IOMMU_HWPT_ALLOC', 24, 48],
      ['IOMMU_GET_HW_INFO', 32, 40],
      ['IOMMU_VIOMMU_ALLOC', 24, 40],
      ['IOMMU_VEVENTQ_ALLOC', 28, 32],
    ]);
  });
});
