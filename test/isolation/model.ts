/**
 * What devices may reach, from the history of calls alone: which page of which buffer, and whether to read or write. No
 * tables, no caches, no kernel; it shares no code with what it checks.
 */
export const PAGE = 4096;

/** A page that a space maps: of a buffer, or of the parent space. */
export interface Mapped {
  readonly buffer?: number;
  /** Page within the buffer, or of the parent. */
  readonly page: number;
  readonly read: boolean;
  readonly write: boolean;
}

/** A page of memory that can be reached. */
export interface Reached {
  readonly buffer: number;
  readonly page: number;
  readonly read: boolean;
  readonly write: boolean;
}

export interface ModelSpace {
  readonly parent: number | undefined;
  readonly pages: Map<number, Mapped>;
}

export class IsolationModel {
  /** What each buffer must hold. */
  readonly buffers = new Map<number, Uint8Array>();
  readonly spaces = new Map<number, ModelSpace>();
  /** The space that a device's requests, without PASID or with one, go through. */
  readonly slots = new Map<string, number>();

  /**
   * `writeOnly`: whether the tables can keep readers out of a page that may be written. A first stage cannot. Drivers that
   * do the work of the `software` devices always can.
   */
  constructor(
    private readonly writeOnly: boolean,
    private readonly software: ReadonlySet<string>,
  ) {}

  /** What a request of a slot reaches at a page. */
  reach(slot: string, page: number): Reached | undefined {
    const space = this.slots.get(slot);
    const reached = space === undefined ? undefined : this.#resolve(space, page);
    if (!reached || this.writeOnly || this.software.has(slot)) return reached;
    return { ...reached, read: reached.read || reached.write };
  }

  #resolve(id: number, page: number): Reached | undefined {
    const space = this.spaces.get(id);
    const mapped = space?.pages.get(page);
    if (space === undefined || mapped === undefined) return undefined;
    const { buffer, read, write } = mapped;
    if (buffer !== undefined) return { buffer, page: mapped.page, read, write };
    const below = this.#resolve(space.parent!, mapped.page);
    if (below === undefined) return undefined;
    const both = { read: read && below.read, write: write && below.write };
    return both.read || both.write ? { ...below, ...both } : undefined;
  }

  /** Reads through a slot: the bytes up to the first page that may not be read. */
  read(slot: string, address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const done = this.#each(slot, address, length, 'read', (memory, at) => bytes.set(memory, at));
    return bytes.subarray(0, done);
  }

  /** Writes through a slot: how many bytes go through. */
  write(slot: string, address: number, bytes: Uint8Array): number {
    return this.#each(slot, address, bytes.length, 'write', (memory, at) =>
      memory.set(bytes.subarray(at, at + memory.length)),
    );
  }

  /** The memory behind each page of a request, and where in the request it is; returns the bytes up to one that is not allowed. */
  #each(
    slot: string,
    address: number,
    length: number,
    right: 'read' | 'write',
    visit: (memory: Uint8Array, at: number) => void,
  ): number {
    let done = 0;
    while (done < length) {
      const offset = (address + done) % PAGE;
      const reached = this.reach(slot, Math.floor((address + done) / PAGE));
      if (reached === undefined || !reached[right]) break;
      const start = reached.page * PAGE + offset;
      const count = Math.min(length - done, PAGE - offset);
      visit(this.buffers.get(reached.buffer)!.subarray(start, start + count), done);
      done += count;
    }
    return done;
  }

  /** A buffer is gone, and its mappings with it. */
  removeBuffer(buffer: number): void {
    this.buffers.delete(buffer);
    for (const { pages } of this.spaces.values())
      for (const [page, mapped] of pages) if (mapped.buffer === buffer) pages.delete(page);
  }

  /** A space is gone, and those on top of it; their devices reach nothing. */
  removeSpace(id: number): number[] {
    const gone = [id];
    for (const [other, { parent }] of this.spaces) if (parent === id) gone.push(...this.removeSpace(other));
    this.spaces.delete(id);
    for (const [slot, space] of this.slots) if (space === id) this.slots.delete(slot);
    return gone;
  }

  /** A device is gone. */
  removeDevice(device: string): void {
    for (const slot of this.slots.keys()) if (slot.startsWith(`${device} `)) this.slots.delete(slot);
  }
}
