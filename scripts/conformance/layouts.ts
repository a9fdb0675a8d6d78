/** The structs of lib/uapi as flat lists of integers, for writing any value to any field. */
import * as uapi from '../../lib/uapi';
import type { Ioctl, Struct } from '../../lib/uapi';

/** An integer of a struct. */
export interface Leaf {
  /** `name`, or `outer.name`. */
  readonly path: string;
  readonly offset: number;
  /** Bytes: 1, 2, 4 or 8; another size is an array, written as one little-endian integer. */
  readonly size: number;
}

export interface Layout {
  readonly row: Ioctl;
  readonly leaves: readonly Leaf[];
  readonly byPath: ReadonlyMap<string, Leaf>;
  /** `size` or `argsz`, if the struct starts with one. */
  readonly sizeField: string | undefined;
  /** Leaves that the kernel may write. */
  readonly outputs: readonly Leaf[];
}

function isStruct(type: unknown): type is Struct {
  return typeof type === 'object' && type !== null && 'offsets' in type;
}

function leavesOf(struct: Struct, prefix = '', base = 0): Leaf[] {
  return Object.entries(struct.fields).flatMap(([name, type]) => {
    const offset = base + struct.offsets[name];
    if (isStruct(type)) return leavesOf(type, `${prefix}${name}.`, offset);
    return type.size === 0 ? [] : [{ path: prefix + name, offset, size: type.size }];
  });
}

function layoutOf(row: Ioctl): Layout {
  const leaves = leavesOf(row.struct);
  const first = leaves[0]?.path;
  const written = [...row.out, ...row.inout] as string[];
  return {
    row,
    leaves,
    byPath: new Map(leaves.map((leaf) => [leaf.path, leaf])),
    sizeField: first === 'size' || first === 'argsz' ? first : undefined,
    // Each member of the test command's union may be written.
    outputs:
      row.name === 'IOMMU_TEST_CMD'
        ? leaves.filter(({ path }) => path.includes('.'))
        : leaves.filter(({ path }) => written.includes(path)),
  };
}

const rows: readonly Ioctl[] = [
  ...uapi.iommufdIoctls,
  ...uapi.vfioIoctls,
  ...uapi.vfioContainerIoctls,
  uapi.IOMMU_TEST_CMD as unknown as Ioctl,
];

/** Every ioctl there is a row for, by name. */
export const layouts: ReadonlyMap<string, Layout> = new Map(rows.map((row) => [row.name, layoutOf(row)]));

export function layout(name: string): Layout {
  const found = layouts.get(name);
  if (!found) throw new RangeError(`there is no ioctl ${name}`);
  return found;
}

/** Fields that hold a new file descriptor after success, and for which test op where that matters. */
const NEW_FDS: Readonly<Record<string, { field: string; op?: number }>> = {
  IOMMU_FAULT_QUEUE_ALLOC: { field: 'out_fault_fd' },
  IOMMU_VEVENTQ_ALLOC: { field: 'out_veventq_fd' },
  IOMMU_TEST_CMD: { field: 'create_access.out_access_fd', op: uapi.IOMMU_TEST_OP_CREATE_ACCESS },
};

/** Offset of the new descriptor that the argument holds after success; -1 for none. */
export function newFdOffset(name: string, argument: DataView): number {
  const found = NEW_FDS[name];
  if (!found) return -1;
  const { byPath } = layout(name);
  if (found.op !== undefined && argument.getUint32(byPath.get('op')!.offset, true) !== found.op) return -1;
  return byPath.get(found.field)!.offset;
}

/** The name of the field at an offset, for people. */
export function fieldAt(name: string, offset: number): string {
  const leaf = layouts
    .get(name)
    ?.leaves.findLast((each) => each.offset <= offset && offset < each.offset + each.size);
  return leaf?.path ?? `byte ${offset}`;
}
