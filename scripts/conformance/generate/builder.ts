/**
 * A sequence while it is made: its calls so far and what they should have left behind. Nothing is executed: that an
 * object exists is a belief, and a later call that refers to it makes sense on any kernel that shares it.
 */
import * as uapi from '../../../lib/uapi';
import { layout, type Leaf } from '../layouts';
import type { Call, FdRef, Fields, IoctlCall, Literal, Value, Words } from '../program';
import type { Random } from '../random';
import { hostileInteger, hostilePointer, isDescriptor, isPointer } from './hostile';

export type ObjectKind =
  | 'ioas'
  | 'hwpt'
  | 'parent'
  | 'nested'
  | 'device'
  | 'fault'
  | 'viommu'
  | 'vdevice'
  | 'veventq'
  | 'stdev'
  | 'access'
  | 'queue';
export type FileKind = 'iommufd' | 'vfio' | 'fault' | 'veventq' | 'access' | 'eventfd' | 'dmabuf';

export interface Made {
  readonly kind: ObjectKind;
  readonly id: Value;
  /** The iommufd it belongs to. */
  readonly fd: FdRef;
}

export interface Mapping {
  readonly ioas: Value;
  /** Its first address, as later calls name it. */
  readonly at: (plus: number) => Value;
  readonly length: number;
  /** The iommufd it belongs to. */
  readonly fd: FdRef;
}

function memberOf(path: string): string {
  return path.slice(0, path.indexOf('.') + 1);
}

/** A call without its label. */
export type Unlabelled = Call extends infer C ? (C extends Call ? Omit<C, 'label'> : never) : never;

export class Builder {
  readonly calls: Call[] = [];
  objects: Made[] = [];
  mappings: Mapping[] = [];
  readonly files: { kind: FileKind; fd: FdRef }[] = [];
  /** Labels of the mmaps that are kept. */
  mapped: number[] = [];
  /** By iommufd: the IOAS that ioctls of VFIO containers mean. */
  readonly compat = new Map<FdRef, Value>();
  /** Of the iommufd that calls go to. */
  context: FdRef = 'none';
  /** One call in this many has a field with a hostile value. */
  hostility = 5;
  /** Files are mapped, memory of the program is not: then another process may take the mappings over. */
  onlyFiles = false;

  constructor(
    readonly random: Random,
    /** Ioctls that one of the kernels does not have. */
    readonly excluded: ReadonlySet<string>,
  ) {}

  /** Adds a call; returns its label. */
  add(call: Unlabelled): number {
    const label = this.calls.length;
    this.calls.push({ label, ...call } as Call);
    return label;
  }

  /** Adds an ioctl, now and then with something wrong in it. -1 if a kernel does not have it. */
  ioctl(request: string, fields: Fields, more: Partial<IoctlCall> = {}): number {
    if (this.excluded.has(request)) return -1;
    const call: IoctlCall = { op: 'ioctl', fd: this.context, request, fields, ...more };
    return this.add(this.random.oneIn(this.hostility) ? this.#spoil(call) : call);
  }

  /** Adds an ioctl exactly as given. -1 if a kernel does not have it. */
  exactly(request: string, fields: Fields, more: Partial<IoctlCall> = {}): number {
    return this.excluded.has(request)
      ? -1
      : this.add({ op: 'ioctl', fd: this.context, request, fields, ...more });
  }

  made(kind: ObjectKind, label: number, field: string): Value {
    const id = { of: label, field };
    if (label >= 0) this.objects.push({ kind, id, fd: this.context });
    return id;
  }

  file(kind: FileKind, fd: FdRef): void {
    if (fd !== -1) this.files.push({ kind, fd });
  }

  /** The id of an object of one of these kinds, mostly; 0 if there is none. */
  id(...kinds: ObjectKind[]): Value {
    const { random } = this;
    if (random.oneIn(40)) return random.pick([0, 99, 0xffff_ffff, 1, 2, 3]);
    const any = random.oneIn(40);
    const fits = (kind: ObjectKind) => kinds.includes(kind) || (kind === 'parent' && kinds.includes('hwpt'));
    const fitting = this.objects.filter(
      ({ kind, fd }) => any || (fits(kind) && (fd === this.context || random.oneIn(30))),
    );
    return fitting.length > 0 ? random.pick(fitting).id : 0;
  }

  hasObject(kind: ObjectKind): boolean {
    return this.objects.some((each) => each.kind === kind);
  }

  /** A descriptor of this kind, mostly. */
  fd(kind: FileKind): FdRef {
    const { random } = this;
    if (random.oneIn(40)) return random.pick(['memfd', 'none', ...this.files.map(({ fd }) => fd)] as FdRef[]);
    const fitting = this.files.filter((file) => file.kind === kind);
    return fitting.length > 0 ? random.pick(fitting).fd : 'none';
  }

  /** A flag word: mostly some of these bits. */
  flags(...bits: number[]): number {
    let word = 0;
    for (const bit of bits) if (this.random.oneIn(2)) word |= bit;
    return this.random.oneIn(40) ? (word | (1 << this.random.below(32))) >>> 0 : word;
  }

  /** Makes one thing wrong: a field, the size, the pointer, the descriptor. */
  #spoil(call: IoctlCall): IoctlCall {
    const { random } = this;
    const { leaves, row, sizeField } = layout(call.request as string);
    switch (random.below(12)) {
      case 0:
        return { ...call, argument: hostilePointer(random) };
      case 1:
        return { ...call, fd: this.#wrongFd(call.request as string) };
      case 2:
      case 3:
        return sizeField ? this.#spoilSize(call, sizeField, row.minimumSize, row.struct.size) : call;
      default: {
        // Of a union, the member that the call uses: another's integer might be its pointer.
        const used = new Set(Object.keys(call.fields).map(memberOf));
        const fitting = leaves.filter(({ path }) => !path.includes('.') || used.has(memberOf(path)));
        if (fitting.length === 0) return call;
        const leaf = random.pick(fitting);
        return { ...call, fields: { ...call.fields, [leaf.path]: this.#spoiled(leaf) } };
      }
    }
  }

  /** Any descriptor, but no device for a container's request: there the number has another meaning. */
  #wrongFd(request: string): FdRef {
    const container = uapi.vfioContainerIoctls.some(({ name }) => name === request);
    const files = this.files.filter(({ kind }) => kind !== 'vfio' || !container);
    return files.length > 0 ? this.random.pick(files).fd : 'none';
  }

  #spoilSize(call: IoctlCall, field: string, minimum: number, full: number): IoctlCall {
    const { random } = this;
    const around = [
      0,
      4,
      8,
      minimum - 1,
      minimum,
      minimum + 1,
      minimum + 4,
      full - 1,
      full,
      full + 1,
      full + 8,
    ];
    const size = random.oneIn(8)
      ? random.pick([4096, 4097, 16384, 0x7fff_ffff, 0xffff_ffff])
      : random.pick(around);
    const tail: Words = { offset: full + random.below(8), width: 1, values: [random.below(3)] };
    const fields = { ...call.fields, [field]: Math.max(size, 0) };
    return call.extra ? { ...call, fields } : { ...call, fields, extra: tail };
  }

  #spoiled({ path, size }: Leaf): Value {
    // Another op would read the same bytes otherwise.
    if (path === 'op') return this.random.pick([0, 24, 0xffff]);
    if (isPointer(path)) return hostilePointer(this.random);
    if (isDescriptor(path)) return this.random.pick<Literal>(['-1', 0x7fff_fff0, '-2147483648']);
    return hostileInteger(this.random, size);
  }
}
