/** What a graph shows of an Iommu: boxes in columns, from devices through address spaces to memory, and links. */
import type {
  DescribedDevice,
  DescribedGroup,
  DescribedMapping,
  DescribedSpace,
  IommuDescription,
} from '../../describe';

export type BoxKind = 'device' | 'other-device' | 'kernel' | 'nested' | 'user' | 'memory';

/** A line of text in a box. */
export interface Row {
  readonly text: string;
  /** The box that it leads to. */
  readonly to?: string;
}

export interface Box {
  readonly id: string;
  readonly kind: BoxKind;
  /** From the left, 0 is the devices'. */
  readonly column: number;
  readonly title: string;
  readonly rows: readonly Row[];
  /** The IOMMU group that it is in. */
  readonly group?: number;
}

export interface Model {
  readonly title: string;
  readonly boxes: readonly Box[];
  /** Headings of the columns that have one. */
  readonly headings: ReadonlyMap<number, string>;
}

/** Mappings and buffers beyond these are counted, not shown. */
const MOST_MAPPINGS = 6;
const MOST_BUFFERS = 12;

export function modelOf(state: IommuDescription): Model {
  const depths = depthsOf(state.spaces);
  const deepest = Math.max(0, ...depths.values());
  const memory = deepest + 2;
  const spaces = state.spaces.map((space) =>
    spaceBox(space, 1 + deepest - (depths.get(space.ioasid) ?? 0), state),
  );
  return {
    title: `/dev/iommu of ${state.kernel}, descriptor ${state.fd}`,
    boxes: [...deviceBoxes(state), ...spaces, ...memoryBoxes(state, memory)],
    headings: new Map([
      [0, 'devices'],
      [1, 'address spaces'],
      [memory, 'memory'],
    ]),
  };
}

/** How many spaces each is above memory's. */
function depthsOf(spaces: readonly DescribedSpace[]): Map<number, number> {
  const byId = new Map(spaces.map((space) => [space.ioasid, space]));
  const depth = (space: DescribedSpace | undefined): number =>
    typeof space?.parent !== 'number' ? 0 : 1 + depth(byId.get(space.parent));
  return new Map(spaces.map((space) => [space.ioasid, depth(space)]));
}

const spaceId = (ioasid: number) => `space ${ioasid}`;
const bufferId = (number: number) => `buffer ${number}`;

function deviceBoxes({ devices, groups }: IommuDescription): Box[] {
  const grouped = groups.flatMap((group) => groupBoxes(group, devices));
  const rest = devices.filter(({ group }) => group === null).map((device) => deviceBox(device));
  return [...grouped, ...rest];
}

function groupBoxes({ id, members }: DescribedGroup, devices: readonly DescribedDevice[]): Box[] {
  return members.map(({ name, driver, cookie }) => {
    const device = devices.find((each) => each.cookie === cookie);
    if (device) return deviceBox(device, id);
    const row = { text: driver === null ? 'no driver' : `driver ${driver}` };
    return { id: `device ${name}`, kind: 'other-device', column: 0, title: name, rows: [row], group: id };
  });
}

function deviceBox({ cookie, name, parent, attached }: DescribedDevice, group?: number): Box {
  const slots = attached.map(({ pasid, ioasid }) => ({
    text: `${pasid === null ? '' : `PASID ${pasid} `}→ IOASID ${ioasid}`,
    to: spaceId(ioasid),
  }));
  const rows = [
    ...(parent === null ? [] : [{ text: `part of ${parent}` }]),
    { text: `cookie ${cookie}` },
    ...(slots.length > 0 ? slots : [{ text: 'DMA blocked' }]),
  ];
  return {
    ...{ id: `device ${cookie}`, kind: 'device', column: 0, title: name, rows },
    ...(group !== undefined && { group }),
  };
}

function spaceBox(space: DescribedSpace, column: number, state: IommuDescription): Box {
  const kind = space.owner === 'user' ? 'user' : space.nesting === 'software' ? 'nested' : 'kernel';
  const what = kind === 'user' ? "the user's page table" : 'kernel-managed';
  const parent =
    space.parent === null
      ? []
      : [{ text: `nested on IOASID ${space.parent} (${space.nesting})`, to: spaceId(space.parent) }];
  const shown = space.mappings.slice(0, MOST_MAPPINGS).map(mappingRow);
  const rows = [{ text: what }, ...parent, ...faultRows(space, state), ...shown, ...restOf(space.mappings)];
  return { id: spaceId(space.ioasid), kind, column, title: `IOASID ${space.ioasid}`, rows };
}

function faultRows({ ioasid, faults }: DescribedSpace, { faultQueues }: IommuDescription): Row[] {
  const queue = faultQueues.find(({ id }) => id === faults);
  if (!queue) return [];
  const pending = queue.pending.filter((fault) => fault.ioasid === ioasid).length;
  return [{ text: `faults to queue ${queue.id}, ${pending} pending` }];
}

function mappingRow({ iova, length, read, write, buffer, parentIova }: DescribedMapping): Row {
  const rights = `${read ? 'r' : '-'}${write ? 'w' : '-'}`;
  const text = `${iova} ${sizeText(length)} ${rights}`;
  if (parentIova !== null) return { text: `${text} → ${parentIova}` };
  return buffer === null ? { text } : { text, to: bufferId(buffer) };
}

function restOf(mappings: readonly DescribedMapping[]): Row[] {
  const rest = mappings.slice(MOST_MAPPINGS);
  const bytes = rest.reduce((sum, { length }) => sum + length, 0);
  return rest.length > 0 ? [{ text: `… ${rest.length} more, ${sizeText(bytes)}` }] : [];
}

function memoryBoxes({ buffers, spaces }: IommuDescription, column: number): Box[] {
  const linked = new Set(
    spaces.flatMap(({ mappings }) => mappings.slice(0, MOST_MAPPINGS).map(({ buffer }) => buffer)),
  );
  const shown = buffers.filter(({ number }) => linked.has(number) || buffers.length <= MOST_BUFFERS);
  const rest = buffers.filter((buffer) => !shown.includes(buffer));
  const boxes = shown.map(({ number, address, length, fd }): Box => {
    const rows = [{ text: address }, ...(fd === null ? [] : [{ text: `memfd, descriptor ${fd}` }])];
    return { id: bufferId(number), kind: 'memory', column, title: sizeText(length), rows };
  });
  if (rest.length === 0) return boxes;
  const bytes = rest.reduce((sum, { length }) => sum + length, 0);
  const title = `${rest.length} more buffers`;
  return [...boxes, { id: 'buffers', kind: 'memory', column, title, rows: [{ text: sizeText(bytes) }] }];
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Bytes in the largest unit that they are a whole number of. */
export function sizeText(bytes: number): string {
  let [count, unit] = [bytes, 0];
  while (count > 0 && count % 1024 === 0 && unit < UNITS.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${count} ${UNITS[unit]}`;
}
