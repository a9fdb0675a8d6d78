/**
 * A Kernel that answers from a script, for tests of what stands above the seam: how errors are built, how faults
 * are grouped. It knows nothing of iommufd; an unscripted call fails the test.
 */
import type { CallPage, DeviceMapping, Kernel, Memory, Watch } from '../lib/kernel';
import { SimulatedCallPage } from '../lib/sim/kernel/call-page';

type Ioctl = (argument: Uint8Array | number | undefined) => number;

export class ScriptedKernel implements Kernel {
  readonly backend = 'simulated';
  readonly version = 'scripted';
  readonly pageSize = 4096;
  /** What each path opens as. */
  readonly files = new Map<string, number>();
  /** What each ioctl request does. */
  readonly ioctls = new Map<number, Ioctl>();
  /** What the next reads give: bytes, or a result. Afterwards 0. */
  readonly reads: (Uint8Array | number)[] = [];
  /** What was written, and the results to give; afterwards everything is taken. */
  readonly written: Uint8Array[] = [];
  readonly writeResults: number[] = [];
  readonly closed: number[] = [];
  /** Directories, files and links by path. */
  readonly directories = new Map<string, string[]>();
  readonly texts = new Map<string, string>();
  readonly links = new Map<string, string>();
  /** Watches that keep the event loop: call to signal readiness. */
  readonly watches = new Set<(ready: number) => void>();

  open(path: string): number {
    return this.files.get(path) ?? -2;
  }
  close(fd: number): number {
    this.closed.push(fd);
    return 0;
  }
  ioctl(_fd: number, request: number, argument?: Uint8Array | number): number {
    const answer = this.ioctls.get(request);
    if (!answer) throw new Error(`ioctl 0x${request.toString(16)} is not in the script`);
    return answer(argument);
  }
  readonly #callPage = new SimulatedCallPage(this);
  callPage(): CallPage {
    return this.#callPage;
  }
  read(_fd: number, bytes: Uint8Array): number {
    const next = this.reads[0];
    if (next === undefined) return 0;
    if (typeof next !== 'number' && next.length > bytes.length) return -22;
    this.reads.shift();
    if (typeof next === 'number') return next;
    bytes.set(next);
    return next.length;
  }
  write(_fd: number, bytes: Uint8Array): number {
    const result = this.writeResults.shift() ?? bytes.length;
    if (result >= 0) this.written.push(bytes.slice());
    return result;
  }
  pread(_fd: number, bytes: Uint8Array): number {
    return this.read(_fd, bytes);
  }
  pwrite(_fd: number, bytes: Uint8Array): number {
    return this.write(_fd, bytes);
  }
  mmap(): DeviceMapping | number {
    return -19;
  }
  poll(): number {
    return 0;
  }
  watch(_fd: number, _events: number, callback: (ready: number) => void): Watch {
    this.watches.add(callback);
    return {
      close: () => void this.watches.delete(callback),
      ref: () => void this.watches.add(callback),
      unref: () => void this.watches.delete(callback),
    };
  }
  eventfd(): number {
    return 99;
  }
  allocate(): Memory | number {
    return -12;
  }
  addressOf(): bigint {
    return 0x1000n;
  }
  readdir(path: string): string[] | number {
    return this.directories.get(path) ?? -2;
  }
  readFile(path: string): string | number {
    return this.texts.get(path) ?? -2;
  }
  writeFile(): number {
    return -2;
  }
  readlink(path: string): string | number {
    return this.links.get(path) ?? -2;
  }
}
