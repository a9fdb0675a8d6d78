// The host's side of a dump of the IOMMU's tables: the guest says what Linux shows of them, the host reads its memory.
import { closeSync, readSync } from 'node:fs';
import type { Socket } from 'node:net';
import { LOW_MEMORY_BYTES } from './qemu';

const PAGE = 4096;
const FOUR_GIB = 2 ** 32;

/** Reads the guest's memory, which is a file, while the guest runs. */
export class GuestMemory {
  #closed = false;

  /** Owns `fd`. */
  constructor(
    readonly fd: number,
    /** Bytes of memory the guest has. */
    readonly bytes: number,
  ) {}

  /** The 4 KiB page at a physical address. RangeError where the guest has no memory. */
  page(address: bigint): Buffer {
    const page = Buffer.alloc(PAGE);
    if (readSync(this.fd, page, 0, PAGE, this.#offset(Number(address))) !== PAGE)
      throw new RangeError(`the guest has no memory at 0x${address.toString(16)}`);
    return page;
  }

  close(): void {
    if (!this.#closed) closeSync(this.fd);
    this.#closed = true;
  }

  /** QEMU keeps what does not fit below 4 GiB behind the rest. */
  #offset(address: number): number {
    const low = Math.min(this.bytes, LOW_MEMORY_BYTES);
    const offset = address < FOUR_GIB ? address : address - FOUR_GIB + low;
    const end = address < FOUR_GIB ? low : this.bytes;
    if (address % PAGE !== 0 || offset + PAGE > end)
      throw new RangeError(`the guest has no page of memory at 0x${address.toString(16)}`);
    return offset;
  }
}

/** What dump-tables.sh sends: for each file that it read, a line '=== NAME' and then the text. */
export type TablesTaker = (files: ReadonlyMap<string, string>, memory: GuestMemory) => void;

/** The files in what the guest sent. */
export function parseFiles(text: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const part of text.split(/^=== /m).slice(1)) {
    const end = part.indexOf('\n');
    files.set(part.slice(0, end), part.slice(end + 1));
  }
  return files;
}

/**
 * Serves the guest: a line with a number of bytes, then as many; answered, once `take` has seen them, with a line that
 * is empty or says what went wrong. The guest waits meanwhile, so that memory is what it described.
 */
export function serveTables(socket: Socket, memory: GuestMemory, take: TablesTaker): void {
  let received = '';
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1');
    const match = /^(\d+)\n/.exec(received);
    if (!match) return;
    const start = match[0].length;
    const end = start + Number(match[1]);
    if (received.length < end) return;
    const text = received.slice(start, end);
    received = received.slice(end);
    socket.write(`${answer(() => take(parseFiles(text), memory))}\n`);
  });
}

function answer(action: () => void): string {
  try {
    action();
    return '';
  } catch (error) {
    return (error as Error).message.replaceAll('\n', ' ');
  }
}
