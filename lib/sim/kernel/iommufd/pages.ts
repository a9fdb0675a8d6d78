/** User memory behind mappings (drivers/iommu/iommufd/pages.c's role). */
import { PAGE_SIZE, type Pin, type UserMemory } from '../user-memory';

const PAGE = BigInt(PAGE_SIZE);

/** A pin and the bytes of the Pages it holds, whole pages. */
interface Held {
  readonly start: bigint;
  readonly end: bigint;
  readonly pin: Pin;
  users: number;
}

/** Memory of a process that areas are slices of; IOAS_COPY makes several areas share one. */
export class Pages {
  #held: Held[] = [];

  constructor(
    readonly memory: UserMemory,
    /** User virtual address of byte 0, page-aligned. */
    readonly address: bigint,
    readonly writable: boolean,
  ) {}

  /**
   * Pins the pages of a slice. What another area has pinned already is shared with it, so that it can be had even
   * after the program unmapped the memory. Undefined: EFAULT.
   */
  pin(startByte: bigint, length: bigint): Pin | undefined {
    const start = startByte - (startByte % PAGE);
    let held = this.#held.find((other) => other.start <= start && startByte + length <= other.end);
    if (!held) {
      const pin = this.memory.pin(this.address + startByte, length, this);
      if (!pin) return undefined;
      const end = startByte + length + PAGE - 1n;
      held = { start, end: end - (end % PAGE), pin, users: 0 };
      this.#held.push(held);
    }
    held.users++;
    const { pin } = held;
    const shared = held;
    return {
      physical: pin.physical + Number(start - held.start),
      unpin: () => this.#unpin(shared),
    };
  }

  #unpin(held: Held): void {
    if (--held.users > 0) return;
    this.#held.splice(this.#held.indexOf(held), 1);
    held.pin.unpin();
  }
}
