/** Where the pages of mappings come from: memory of a process, a file, or a DMA-buf. */
import { errno } from '../../../uapi/errno';
import type { DmaBuf, DmaBufImporter } from '../dma-buf';
import type { OpenFile } from '../file';
import type { Pin } from '../frames';
import { MemoryFile } from '../memfd';
import { PAGE_SIZE, type UserMemory } from '../user-memory';

const PAGE = BigInt(PAGE_SIZE);

/** Pages by number, from 0. */
export interface PageSource {
  /** What automatic IOVAs take for the address of page 0: huge pages need both aligned alike. */
  readonly address: bigint;
  /** Pins pages [first, end), or -errno. */
  pin(first: number, end: number): Pin | number;
  /** The pages are needed no longer. */
  release(): void;
}

/** Memory of a process from `address` on, page-aligned. */
export class UserSource implements PageSource {
  constructor(
    readonly memory: UserMemory,
    readonly address: bigint,
  ) {}

  pin(first: number, end: number): Pin | number {
    const start = this.address + BigInt(first) * PAGE;
    return this.memory.pin(start, BigInt(end - first) * PAGE) ?? -errno.EFAULT;
  }

  /** copy_from_user or copy_to_user, page by page: an address space may end in the middle. 0 or EFAULT. */
  copy(startByte: bigint, data: Uint8Array, write: boolean): number {
    const { memory } = this;
    const address = this.address + startByte;
    for (let done = 0; done < data.length;) {
      const at = address + BigInt(done);
      const part = data.subarray(done, done + PAGE_SIZE - Number(at % PAGE));
      if (write) {
        if (!memory.write(at, part)) return -errno.EFAULT;
      } else {
        const bytes = memory.read(at, part.length);
        if (!bytes) return -errno.EFAULT;
        part.set(bytes);
      }
      done += part.length;
    }
    return 0;
  }

  release(): void {
    // The memory is the process's.
  }
}

/** A file from byte `address` on, page-aligned. That it is no memory shows when it is pinned. */
export class FileSource implements PageSource {
  readonly #firstPage: number;

  constructor(
    readonly file: OpenFile,
    readonly address: bigint,
  ) {
    file.get();
    this.#firstPage = Number(address / PAGE);
  }

  pin(first: number, end: number): Pin | number {
    const { file } = this;
    if (!(file instanceof MemoryFile)) return -errno.EINVAL;
    return file.pin(this.#firstPage + first, this.#firstPage + end) ?? -errno.EINVAL;
  }

  release(): void {
    this.file.put();
  }
}

/**
 * A DMA-buf from byte `address` on, page-aligned. Its memory stays where it is without pins, and may be taken back at
 * any time, for good.
 */
export class DmaBufSource implements PageSource, DmaBufImporter {
  readonly #users = new Set<() => void>();
  #revoked = false;

  private constructor(
    readonly file: DmaBuf,
    readonly address: bigint,
    /** Physical address of page 0. */
    readonly physical: number,
  ) {
    file.get().attach(this);
  }

  /** -errno where the memory cannot be had, as after it was taken back (ENODEV). */
  static create(file: DmaBuf, address: bigint): DmaBufSource | number {
    const { physical } = file;
    return physical < 0 ? physical : new DmaBufSource(file, address, physical + Number(address));
  }

  get revoked(): boolean {
    return this.#revoked;
  }

  /** The kernel's own accesses do not reach it. */
  pin(): number {
    return -errno.EINVAL;
  }

  /** Has `onRevoke` take the memory out of tables when it is taken back. Returns the way to stop that. */
  use(onRevoke: () => void): () => void {
    this.#users.add(onRevoke);
    return () => this.#users.delete(onRevoke);
  }

  revoke(): void {
    if (this.#revoked) return;
    for (const onRevoke of this.#users) onRevoke();
    this.#revoked = true;
  }

  release(): void {
    this.file.detach(this);
    this.file.put();
  }
}
