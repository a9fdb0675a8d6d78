/** The picture of an Iommu: is it all there, and can it be read? */
import * as fc from 'fast-check';
import type { DescribedMapping, DescribedSpace, Hex, IommuDescription } from '../../lib';
import { modelOf, sizeText } from '../../lib/cli/graph/model';
import { drawSvg } from '../../lib/cli/graph/svg';
import { readPicture, type Picture, type Rectangle } from './svg-reader';

function overlap(one: Rectangle, other: Rectangle): boolean {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

function inside(inner: Rectangle, outer: Rectangle): boolean {
  return (
    inner.left >= outer.left &&
    inner.right <= outer.right &&
    inner.top >= outer.top &&
    inner.bottom <= outer.bottom
  );
}

/** What makes a picture unreadable. */
function flaws({ page, boxes, frames, links, texts }: Picture): string[] {
  const found: string[] = [];
  const pairs = <T>(list: readonly T[]) =>
    list.flatMap((one, i) => list.slice(i + 1).map((other) => [one, other] as const));
  for (const [one, other] of pairs(boxes))
    if (overlap(one, other)) found.push(`${one.id} covers ${other.id}`);
  for (const [one, other] of pairs(frames)) if (overlap(one, other)) found.push('frames overlap');
  for (const [one, other] of pairs(texts))
    if (overlap(one, other)) found.push(`'${one.text}' is written over '${other.text}'`);
  for (const box of [...boxes, ...frames]) {
    if (!inside(box, page)) found.push(`${box.id} is off the page`);
    for (const text of box.texts) if (!inside(text, box)) found.push(`'${text.text}' leaves ${box.id}`);
  }
  for (const text of texts) if (!inside(text, page)) found.push(`'${text.text}' is off the page`);
  for (const frame of frames)
    for (const box of boxes)
      if (overlap(frame, box) && !inside(box, frame)) found.push(`${box.id} is half in a group`);
  for (const { from, to, points } of links)
    for (const box of boxes)
      if (box.id !== from && box.id !== to)
        for (const { x, y } of points)
          if (overlap({ left: x, right: x, top: y, bottom: y }, box))
            found.push(`${from} to ${to} passes ${box.id}`);
  return found;
}

const hex = (value: number): Hex => `0x${value.toString(16)}`;

interface Plan {
  readonly parents: readonly number[];
  readonly users: readonly boolean[];
  readonly mappings: readonly number[];
  readonly targets: readonly number[];
  readonly devices: readonly { readonly group: number | null; readonly attached: readonly number[] }[];
  readonly buffers: number;
}

const plans: fc.Arbitrary<Plan> = fc.record({
  parents: fc.array(fc.nat(8), { maxLength: 9 }),
  users: fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
  mappings: fc.array(fc.nat(9), { minLength: 9, maxLength: 9 }),
  targets: fc.array(fc.nat(30), { minLength: 9, maxLength: 9 }),
  devices: fc.array(
    fc.record({ group: fc.option(fc.nat(3)), attached: fc.array(fc.nat(8), { maxLength: 4 }) }),
    { maxLength: 8 },
  ),
  buffers: fc.nat(20),
});

/** A state that could be: spaces on earlier ones, mappings of buffers there are, devices in groups. */
function stateOf({ parents, users, mappings, targets, devices, buffers }: Plan): IommuDescription {
  const spaces = parents.map((wanted, i): DescribedSpace => {
    const parent = wanted < i ? wanted + 1 : null;
    const user = parent !== null && users[i];
    const range = (n: number) => ({
      iova: hex(n * 2 ** 32),
      length: 4096 * 3 ** n,
      read: n % 2 > 0,
      write: true,
    });
    const list = Array.from({ length: user ? 0 : mappings[i] }, (_, n): DescribedMapping => ({
      ...{ ...range(n), buffer: null, offset: null, parentIova: hex(n) },
      ...(parent === null && {
        buffer: buffers ? (targets[i] + n) % buffers : null,
        offset: 0,
        parentIova: null,
      }),
    }));
    return {
      ...{ ioasid: i + 1, owner: user ? 'user' : 'kernel', parent, ioas: 1, pageTables: [], pasid: false },
      nesting: parent === null ? null : user ? 'hardware' : 'software',
      ...{ enforceSnoop: null, faults: i % 3 ? null : 8, mappings: list, shadow: null },
    };
  });
  const slots = (attached: readonly number[]) =>
    attached.flatMap((at, i) => (at < spaces.length ? [{ pasid: i ? i * 1000 : null, ioasid: at + 1 }] : []));
  const described = devices.map(({ group, attached }, i) => ({
    ...{ cookie: hex(i), name: `0000:0${i}:00.0`, id: i, fd: i, group, attached: slots(attached) },
    parent: group === null && i % 2 ? '0000:e0:1f.7' : null,
  }));
  const ids = [...new Set(devices.map(({ group }) => group))].filter((id) => id !== null);
  return {
    ...{ backend: 'simulated', kernel: 'Linux 7.3.4 <&">', fd: 3, devices: described, spaces },
    groups: ids.map((id) => ({
      id,
      members: [
        ...described
          .filter(({ group }) => group === id)
          .map(({ name, cookie }) => ({ name, driver: 'vfio-pci', cookie })),
        { name: `0000:f${id}:00.0`, driver: id % 2 ? null : 'nvme', cookie: null },
      ],
    })),
    buffers: Array.from({ length: buffers }, (_, number) => ({
      ...{
        number,
        address: hex(2 ** 46 + number),
        length: 4096 * (number + 1),
        fd: number % 2 ? number : null,
      },
    })),
    virtualMachines: [],
    faultQueues: [{ id: 8, fd: 9, limit: 1, pending: [] }],
  };
}

test('whatever there is, nothing overlaps, every label fits, and no link passes a box that is not its own', () => {
  const show = (group: readonly Plan[]) => {
    const states = group.map(stateOf);
    const picture = readPicture(drawSvg(states.map(modelOf)));
    expect(flaws(picture)).toEqual([]);
    const count = (list: (state: IommuDescription) => number) =>
      states.reduce((sum, state) => sum + list(state), 0);
    expect(picture.boxes.filter(({ kind }) => kind === 'box device')).toHaveLength(
      count((s) => s.devices.length),
    );
    expect(picture.boxes.filter(({ id }) => id.startsWith('space'))).toHaveLength(
      count((s) => s.spaces.length),
    );
    expect(picture.frames).toHaveLength(count((s) => s.groups.length));
  };
  // One parser for many pictures.
  const options = { numRuns: 8, endOnFailure: true };
  fc.assert(fc.property(fc.array(plans, { minLength: 15, maxLength: 15 }), show), options);
});

test('a picture says who reaches what', () => {
  const plan: Plan = {
    ...{
      parents: [8, 0, 0],
      users: [false, false, true],
      mappings: [8, 1, 0],
      targets: [0, 0, 0],
      buffers: 2,
    },
    devices: [
      { group: 1, attached: [1, 0] },
      { group: 1, attached: [] },
    ],
  };
  const { boxes, links, texts } = readPicture(drawSvg([modelOf(stateOf(plan))]));
  const text = (id: string) => boxes.find((box) => box.id === id)!.texts.map((each) => each.text);
  expect(text('device 0x0')).toEqual(['0000:00:00.0', 'cookie 0x0', '→ IOASID 2', 'PASID 1000 → IOASID 1']);
  expect(text('device 0x1')).toEqual(['0000:01:00.0', 'cookie 0x1', 'DMA blocked']);
  expect(text('device 0000:f1:00.0')).toEqual(['0000:f1:00.0', 'no driver']);
  expect(text('space 1').slice(0, 4)).toEqual([
    'IOASID 1',
    'kernel-managed',
    'faults to queue 8, 0 pending',
    '0x0 4 KiB -w',
  ]);
  expect(text('space 1').slice(-1)).toEqual(['… 2 more, 11664 KiB']);
  expect(text('space 2')).toEqual([
    'IOASID 2',
    'kernel-managed',
    'nested on IOASID 1 (software)',
    '0x0 4 KiB -w → 0x0',
  ]);
  expect(text('space 3')[1]).toBe("the user's page table");
  expect(text('buffer 1')).toEqual(['8 KiB', '0x400000000001', 'memfd, descriptor 1']);
  const ends = links.map(({ from, to }) => `${from} > ${to}`);
  for (const end of [
    'device 0x0 > space 2',
    'device 0x0 > space 1',
    'space 2 > space 1',
    'space 1 > buffer 0',
  ])
    expect(ends).toContain(end);
  expect(texts.map((each) => each.text)).toContain('/dev/iommu of Linux 7.3.4 <&">, descriptor 3');
});

test('an Iommu with nothing in it is a picture too', () => {
  const empty = stateOf({ parents: [], users: [], mappings: [], targets: [], devices: [], buffers: 0 });
  expect(flaws(readPicture(drawSvg([modelOf(empty)])))).toEqual([]);
});

test.each([
  [0, '0 bytes'],
  [100, '100 bytes'],
  [4096, '4 KiB'],
  [3 * 2 ** 20, '3 MiB'],
  [2 ** 30 + 1024, '1048577 KiB'],
  [2 ** 50, '1024 TiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(sizeText(bytes)).toBe(text);
});
