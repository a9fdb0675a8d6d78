/** What a rig's file does, in TypeScript for SoftwarePump and in C (test/native/fault-file.c) for the addon's pump. */
import { POLLHUP, POLLIN } from '../../lib/kernel';
import { errno, iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../lib/uapi';
import { ScriptedKernel } from '../scripted-kernel';

export type RecordInput = Parameters<typeof iommu_hwpt_pgfault.encode>[0];
export type ResponseRecord = ReturnType<typeof iommu_hwpt_page_response.decode>;

/** The device's side of a kernel's file. */
export interface FaultFile {
  /** A group of faults, or an event. */
  deliver(bytes: Uint8Array): void;
  /** The kernel answers a group itself. */
  forget(cookie: number): void;
  /** The next read fails. */
  fail(error: number): void;
  hangUp(): void;
  /** The responses that were taken so far. */
  responses(): ResponseRecord[];
}

export function groupOf(...records: RecordInput[]): Uint8Array {
  const bytes = new Uint8Array(records.length * iommu_hwpt_pgfault.size);
  for (const [i, record] of records.entries())
    bytes.set(iommu_hwpt_pgfault.encode(record), i * iommu_hwpt_pgfault.size);
  return bytes;
}

/** Whole groups, EINVAL where the first does not fit; a write ends at a response to nothing. */
export class ScriptedFaultFile extends ScriptedKernel implements FaultFile {
  readonly #queue: (Uint8Array | { readonly cookie: number } | { readonly error: number })[] = [];
  readonly #waiting = new Set<number>();
  readonly #taken: ResponseRecord[] = [];
  /** Of a response that was taken in part. */
  #part: number[] = [];
  #ended = false;
  #telling = false;

  constructor(private readonly most = Infinity) {
    super();
  }

  deliver(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    this.#tell();
  }
  forget(cookie: number): void {
    this.#queue.push({ cookie });
  }
  fail(error: number): void {
    this.#queue.push({ error });
    this.#tell();
  }
  hangUp(): void {
    this.#ended = true;
    this.#tell();
  }
  responses(): ResponseRecord[] {
    return [...this.#taken];
  }

  override watch(fd: number, events: number, callback: (ready: number) => void) {
    const watch = super.watch(fd, events, callback);
    this.#tell();
    const ref = () => {
      watch.ref();
      this.#tell();
    };
    return { ...watch, ref };
  }

  /** Level-triggered, as poll(2) is: watchers are told again for as long as there is something. */
  #tell(): void {
    if (this.#telling) return;
    this.#telling = true;
    setImmediate(() => {
      this.#telling = false;
      const ready = (this.#queue.length > 0 ? POLLIN : 0) | (this.#ended ? POLLHUP : 0);
      if (ready === 0 || this.watches.size === 0) return;
      for (const each of this.watches) each(ready);
      this.#tell();
    });
  }

  override read(_fd: number, bytes: Uint8Array): number {
    let total = 0;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      if (next instanceof Uint8Array) {
        if (total + next.length > bytes.length) return total > 0 ? total : -errno.EINVAL;
        bytes.set(next, total);
        total += next.length;
        const { size, offsets } = iommu_hwpt_pgfault;
        if (next.length % size === 0)
          this.#waiting.add(new DataView(next.buffer).getUint32(next.length - size + offsets.cookie, true));
      } else if ('cookie' in next) this.#waiting.delete(next.cookie);
      else if (total > 0) return total;
      this.#queue.shift();
      if ('error' in next) return -next.error;
    }
    return total;
  }

  override write(_fd: number, bytes: Uint8Array): number {
    const { size } = iommu_hwpt_page_response;
    let done = 0;
    for (let next = this.#queue[0]; next && 'cookie' in next; next = this.#queue[0]) {
      this.#waiting.delete(next.cookie);
      this.#queue.shift();
    }
    for (; done < bytes.length && done < this.most; done++) {
      this.#part.push(bytes[done]);
      if (this.#part.length < size) continue;
      const response = iommu_hwpt_page_response.decode(Uint8Array.from(this.#part));
      this.#part = [];
      if (!this.#waiting.delete(response.cookie))
        return (done = done - (done % size)) > 0 ? done : -errno.EINVAL;
      this.#taken.push(response);
    }
    return done;
  }
}
