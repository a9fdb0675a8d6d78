/** Objects with a queue that programs read through a file descriptor (struct iommufd_eventq of the kernel). */
import { errno } from '../../../uapi/errno';
import { StreamFile } from '../file';
import type { SimulatedProcess } from '../process';
import type { Command } from './command';
import type { IommufdFile } from './file';
import { IommufdObject } from './object';

export abstract class EventQueue extends IommufdObject {
  #file: EventQueueFile | undefined;

  abstract read(bytes: Uint8Array): number;
  abstract poll(): number;

  write(_bytes: Uint8Array): number {
    return -errno.EINVAL;
  }

  /** Opens its one file in the calling process: the descriptor, or -errno, and then there is none. */
  open({ file: context, process }: Pick<Command, 'file' | 'process'>): number {
    const file = (this.#file = new EventQueueFile(this, context)).get();
    this.users++;
    const fd = process.install(file);
    file.put();
    return fd;
  }

  /** The file is closed. It cannot be opened again. */
  closed(): void {
    this.#file = undefined;
    this.users--;
  }

  /** There is something new to read. */
  protected notify(): void {
    this.#file?.notify();
  }
}

class EventQueueFile extends StreamFile {
  constructor(
    readonly queue: EventQueue,
    readonly context: IommufdFile,
  ) {
    super();
    context.get();
  }

  notify(): void {
    this.wake();
  }

  override read(_process: SimulatedProcess, bytes: Uint8Array): number {
    return this.queue.read(bytes);
  }

  override write(_process: SimulatedProcess, bytes: Uint8Array): number {
    return this.queue.write(bytes);
  }

  override poll(): number {
    return this.queue.poll();
  }

  protected override release(): void {
    this.queue.closed();
    this.context.put();
  }
}
