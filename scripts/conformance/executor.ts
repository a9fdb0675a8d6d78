/** Makes the calls of a sequence on a kernel, and says what each did: in full, or as one hash. */
import { basename, dirname } from 'node:path/posix';
import {
  O_NONBLOCK,
  O_RDWR,
  PROT_READ,
  PROT_WRITE,
  type DeviceMapping,
  type Kernel,
  type Memory,
} from '../../lib/open-kernel';
import { errno, IOMMU_TEST_OP_DMABUF_GET, IOMMU_TEST_OP_TRIGGER_IOPF } from '../../lib/uapi';
import { VFIO_PATH } from './generate/vfio';
import { masked } from './known-differences';
import { ARGUMENT_BYTES, DATA_BYTES, MEMFD_BYTES, SCRATCH_BYTES } from './limits';
import { layouts, newFdOffset, type Layout } from './layouts';
import { isUnsafe } from './safety';
import { REFUSED } from './program';
import type { Call, CallRecord, Change, FdRef, IoctlCall, Sequence, Value, Words } from './program';

/** Of the scratch memory and the argument, how much is compared. */
const SEEN_BYTES = 4096;
const HUGE = 2 * 2 ** 20;

/** Told what happened, byte by byte. */
interface Sink {
  call(result: number): void;
  byte(area: Change['area'], offset: number, value: number): void;
}

class HashSink implements Sink {
  hash = 0x811c_9dc5;

  call(result: number): void {
    this.#mix(result);
  }

  byte(_area: Change['area'], offset: number, value: number): void {
    this.#mix((offset << 8) | value);
  }

  #mix(value: number): void {
    let h = Math.imul(this.hash ^ value, 0x85eb_ca6b);
    h ^= h >>> 13;
    this.hash = Math.imul(h, 0xc2b2_ae35) ^ (h >>> 16);
  }
}

/** Passes everything on, and tells of each call. */
class ObservedSink implements Sink {
  #next = 0;

  constructor(
    readonly inner: Sink,
    readonly sequence: Sequence,
    readonly observe: (call: Call, result: number) => void,
  ) {}

  call(result: number): void {
    this.observe(this.sequence.calls[this.#next++], result);
    this.inner.call(result);
  }

  byte(area: Change['area'], offset: number, value: number): void {
    this.inner.byte(area, offset, value);
  }
}

class RecordSink implements Sink {
  readonly records: CallRecord[] = [];

  call(result: number): void {
    this.records.push({ result, changes: [] });
  }

  byte(area: Change['area'], offset: number, value: number): void {
    const changes = this.records.at(-1)!.changes as Change[];
    const text = value.toString(16).padStart(2, '0');
    const last = changes.at(-1);
    if (last?.area === area && last.offset + last.bytes.length / 2 === offset)
      changes[changes.length - 1] = { ...last, bytes: last.bytes + text };
    else changes.push({ area, offset, bytes: text });
  }
}

function need(memory: Memory | number): Memory {
  if (typeof memory === 'number') throw new Error(`no memory: ${memory}`);
  return memory;
}

/**
 * Huge pages: where pages lie in physical memory shows in how large an entry of a page table is, and so in what a dirty
 * bit stands for, and in whether a hardware queue can be there. Ordinary memory where there are none.
 */
function mappable(kernel: Kernel, bytes: number, memfd = false): Memory {
  const memory = kernel.allocate(bytes, { hugePages: true, memfd });
  return typeof memory === 'number' ? need(kernel.allocate(bytes + HUGE, { memfd })) : memory;
}

/** Automatic IOVAs follow the alignment of addresses: the same for every kernel. */
function alignedStart({ address }: Memory): bigint {
  return ((address + BigInt(HUGE) - 1n) / BigInt(HUGE)) * BigInt(HUGE);
}

function toBigInt(value: number | bigint | string): bigint {
  return typeof value === 'bigint' ? value : BigInt(value);
}

export class Executor {
  readonly #data: Memory;
  readonly #dataStart: bigint;
  readonly #scratch: Memory;
  readonly #scratchStart: bigint;
  readonly #scratchBytes: Uint8Array;
  readonly #argument: Memory;
  readonly #memfd: Memory;
  readonly #argumentView: DataView;
  readonly #scratchView: DataView;
  readonly #argumentBefore: Uint8Array;
  readonly #scratchBefore: Uint8Array;
  /** Of this sequence: label → descriptor, fields, kept mapping; every descriptor that it opened. */
  #fds = new Map<number, number>();
  #values = new Map<number, Record<string, bigint>>();
  #opened: number[] = [];
  readonly #mappings = new Map<number, DeviceMapping>();
  #realDevice = false;
  #sink: Sink = new HashSink();

  /** `settle` waits until what the kernel does in the background is done. */
  constructor(
    readonly kernel: Kernel,
    readonly settle: () => void,
  ) {
    this.#data = mappable(kernel, DATA_BYTES);
    this.#dataStart = alignedStart(this.#data);
    this.#scratch = need(kernel.allocate(SCRATCH_BYTES + HUGE));
    this.#scratchStart = alignedStart(this.#scratch);
    this.#scratchBytes = this.#scratch.bytes.subarray(Number(this.#scratchStart - this.#scratch.address));
    this.#argument = need(kernel.allocate(ARGUMENT_BYTES));
    this.#memfd = mappable(kernel, MEMFD_BYTES, true);
    for (const { bytes } of [this.#data, this.#scratch, this.#memfd]) bytes.fill(0);
    // However large `size` is, the bytes past the argument's memory are never asked for.
    this.#argument.bytes[ARGUMENT_BYTES - 1] = 0xff;
    this.#argumentView = new DataView(this.#argument.bytes.buffer);
    this.#scratchView = new DataView(this.#scratchBytes.buffer, this.#scratchBytes.byteOffset);
    this.#argumentBefore = this.#argument.bytes.slice(0, SEEN_BYTES);
    this.#scratchBefore = this.#scratchBytes.slice(0, SEEN_BYTES);
  }

  /** What each call did. */
  run(sequence: Sequence): CallRecord[] {
    const sink = new RecordSink();
    this.#run(sequence, sink);
    return sink.records;
  }

  /** The same in 32 bits. */
  hash(sequence: Sequence, observe?: (call: Call, result: number) => void): number {
    const sink = new HashSink();
    this.#run(sequence, observe ? new ObservedSink(sink, sequence, observe) : sink);
    return sink.hash >>> 0;
  }

  /** Frees the memory. */
  close(): void {
    for (const memory of [this.#data, this.#scratch, this.#argument, this.#memfd]) memory.free();
  }

  #run(sequence: Sequence, sink: Sink): void {
    this.#sink = sink;
    this.#fds.clear();
    this.#values.clear();
    this.#realDevice = false;
    this.#scratchBytes.fill(0, 0, 65536);
    this.#scratchBefore.fill(0);
    try {
      for (const call of sequence.calls) this.#call(call);
    } finally {
      for (const mapping of this.#mappings.values()) mapping.unmap();
      this.#mappings.clear();
      for (const fd of this.#opened.splice(0)) this.kernel.close(fd);
    }
  }

  #call(call: Call): void {
    const { kernel } = this;
    switch (call.op) {
      case 'open':
        return this.#openedFd(call.label, kernel.open(this.#pathOf(call.path), O_RDWR));
      case 'eventfd':
        return this.#openedFd(call.label, kernel.eventfd(call.initial, O_NONBLOCK));
      case 'close':
        return this.#close(call.fd);
      case 'status':
        return this.#sink.call(this.#status(call.line));
      case 'poll':
        return this.#sink.call(kernel.poll(this.#fd(call.fd), call.events));
      case 'mmap':
        return this.#mmap(call);
      case 'munmap':
        return this.#munmap(call.mapping);
      case 'read':
      case 'pread':
        return this.#read(call);
      case 'write':
      case 'pwrite':
        return this.#write(call);
      case 'ioctl':
        return this.#ioctl(call.label, call);
    }
  }

  #fd(ref: FdRef): number {
    if (ref === 'memfd') return this.#memfd.fd;
    return ref === 'none' ? -1 : (this.#fds.get(ref) ?? -1);
  }

  /** The path here: a device that no IOMMU is in front of has another name. */
  #pathOf(path: string): string {
    if (path !== VFIO_PATH) return path;
    const folder = dirname(path);
    const names = this.kernel.readdir(folder);
    const name = typeof names === 'number' ? undefined : names.find((each) => each.endsWith(basename(path)));
    return name === undefined ? path : `${folder}/${name}`;
  }

  /** Descriptors are called by the order in which the sequence got them. */
  #openedFd(label: number, fd: number): void {
    this.#sink.call(fd < 0 ? fd : this.#opened.length);
    if (fd >= 0) this.#keep(label, fd);
  }

  #keep(label: number, fd: number): void {
    this.#fds.set(label, fd);
    this.#opened.push(fd);
  }

  #close(ref: FdRef): void {
    if (typeof ref !== 'number') return this.#sink.call(this.kernel.close(-1));
    const fd = this.#fd(ref);
    this.#sink.call(this.kernel.close(fd));
    this.#fds.delete(ref);
    const index = this.#opened.indexOf(fd);
    if (index >= 0) this.#opened.splice(index, 1);
  }

  #status(line: string): number {
    const status = this.kernel.readFile('/proc/self/status');
    if (typeof status === 'number') return status;
    const [, kilobytes] = new RegExp(`^${line}:\\s*(\\d+) kB$`, 'm').exec(status) ?? [];
    return Number(kilobytes) / 4;
  }

  #mmap({ label, fd, offset, length, keep }: Extract<Call, { op: 'mmap' }>): void {
    const mapping = this.kernel.mmap(this.#fd(fd), offset, length, PROT_READ | PROT_WRITE);
    this.#sink.call(typeof mapping === 'number' ? mapping : 0);
    if (typeof mapping === 'number') return;
    if (keep) this.#mappings.set(label, mapping);
    else mapping.unmap();
  }

  #munmap(label: number): void {
    this.#mappings.get(label)?.unmap();
    this.#sink.call(this.#mappings.delete(label) ? 0 : -errno.EINVAL);
  }

  #read(call: Extract<Call, { op: 'read' | 'pread' }>): void {
    // Not zero, so that zeros read show.
    const bytes = new Uint8Array(call.length).fill(0xa5);
    const fd = this.#fd(call.fd);
    this.#sink.call(
      call.op === 'read' ? this.kernel.read(fd, bytes) : this.kernel.pread(fd, bytes, call.offset),
    );
    for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0xa5) this.#sink.byte('buffer', i, bytes[i]);
  }

  #write(call: Extract<Call, { op: 'write' | 'pwrite' }>): void {
    const bytes = new Uint8Array(call.length);
    this.#words(new DataView(bytes.buffer), call.bytes);
    const fd = this.#fd(call.fd);
    this.#sink.call(
      call.op === 'write' ? this.kernel.write(fd, bytes) : this.kernel.pwrite(fd, bytes, call.offset),
    );
  }

  #ioctl(label: number, call: IoctlCall): void {
    const layout = typeof call.request === 'string' ? layouts.get(call.request) : undefined;
    const request = typeof call.request === 'number' ? call.request : layout?.row.request;
    if (request === undefined) throw new RangeError(`there is no ioctl ${call.request}`);
    if (isUnsafe(call, this.#realDevice)) return this.#sink.call(REFUSED);
    this.#argument.bytes.fill(0, 0, SEEN_BYTES);
    if (layout) this.#fields(layout, call);
    if (call.extra) this.#words(this.#argumentView, call.extra);
    for (const words of call.scratch ?? []) this.#words(this.#scratchView, words);
    this.#argumentBefore.set(this.#argument.bytes.subarray(0, SEEN_BYTES));
    this.#scratchBefore.set(this.#scratchBytes.subarray(0, SEEN_BYTES));
    const argument = call.argument === undefined ? Number(this.#argument.address) : Number(call.argument);
    const unnamed = call.fields.op === IOMMU_TEST_OP_DMABUF_GET ? this.#nextFd() : -1;
    const result = this.kernel.ioctl(this.#fd(call.fd), request, argument);
    if (result >= 0 && unnamed >= 0) this.#keep(label, unnamed);
    this.#finish(label, call, layout, result);
  }

  /** The lowest free descriptor: Linux 7.3 does not say which one a DMA-buf of its selftest got. */
  #nextFd(): number {
    const fd = this.kernel.eventfd(0, 0);
    this.kernel.close(fd);
    return fd;
  }

  #fields(layout: Layout, call: IoctlCall): void {
    const { sizeField, row } = layout;
    if (sizeField) this.#argumentView.setUint32(0, row.struct.size, true);
    for (const [path, value] of Object.entries(call.fields)) {
      const leaf = layout.byPath.get(path);
      if (!leaf) throw new RangeError(`${row.name} has no field ${path}`);
      this.#store(this.#argumentView, leaf.offset, leaf.size, this.#resolve(value));
    }
  }

  /** After the call (of which one feature alone gives more than 0, a descriptor): what it opened and returned, for later calls; what it changed, for the sink. */
  #finish(label: number, call: IoctlCall, layout: Layout | undefined, result: number): void {
    if (result >= 0 && layout && call.argument === undefined) {
      const { name } = layout.row;
      const at = newFdOffset(name, this.#argumentView);
      if (at >= 0) {
        const fd = this.#argumentView.getInt32(at, true);
        this.#argumentView.setInt32(at, this.#opened.length, true);
        this.#keep(label, fd);
      }
      this.#remember(label, layout);
    }
    if (result >= 0 && call.request === 'VFIO_DEVICE_BIND_IOMMUFD') this.#realDevice = true;
    if (result > 0 && call.request === 'VFIO_DEVICE_FEATURE') this.#openedFd(label, result);
    else this.#sink.call(result);
    this.#changes('argument', this.#argument.bytes, this.#argumentBefore, call);
    this.#changes('scratch', this.#scratchBytes, this.#scratchBefore, call);
    // The only call that leaves work for later: the fault goes through a queue of the kernel's.
    if (result >= 0 && call.fields.op === IOMMU_TEST_OP_TRIGGER_IOPF) this.settle();
  }

  #remember(label: number, { outputs }: Layout): void {
    const values: Record<string, bigint> = {};
    for (const { path, offset, size } of outputs) {
      if (size === 8) values[path] = this.#argumentView.getBigUint64(offset, true);
      else if (size === 4) values[path] = BigInt(this.#argumentView.getUint32(offset, true));
    }
    this.#values.set(label, values);
  }

  #changes(area: 'argument' | 'scratch', now: Uint8Array, before: Uint8Array, call: IoctlCall): void {
    if (Buffer.compare(now.subarray(0, SEEN_BYTES), before) === 0) return;
    for (let i = 0; i < SEEN_BYTES; i++)
      if (now[i] !== before[i] && !masked(call, area, i)) this.#sink.byte(area, i, now[i]);
  }

  #words(view: DataView, { offset, width, values }: Words): void {
    values.forEach((value, i) => {
      const at = offset + i * width;
      if (at + width <= view.byteLength) this.#store(view, at, width, this.#resolve(value));
    });
  }

  #resolve(value: Value): number | bigint {
    if (typeof value === 'number') return value;
    if (typeof value === 'string') return BigInt(value);
    if ('fd' in value) return this.#fd(value.fd);
    if ('at' in value) return this.#startOf(value.at) + BigInt(value.offset);
    return (this.#values.get(value.of)?.[value.field] ?? 0n) + toBigInt(value.plus ?? 0);
  }

  #startOf(memory: 'data' | 'scratch' | 'memfd'): bigint {
    if (memory === 'memfd') return alignedStart(this.#memfd);
    return memory === 'data' ? this.#dataStart : this.#scratchStart;
  }

  #store(view: DataView, offset: number, size: number, value: number | bigint): void {
    if (size === 4 && typeof value === 'number') return view.setUint32(offset, value, true);
    let rest = BigInt.asUintN(size * 8, toBigInt(value));
    if (size === 8) return view.setBigUint64(offset, rest, true);
    for (let i = 0; i < size; i++, rest >>= 8n) view.setUint8(offset + i, Number(rest & 0xffn));
  }
}

/** Whether a record says that this kernel does not know the ioctl. */
export function isUnknown(record: CallRecord): boolean {
  return record.result === -errno.ENOTTY;
}
