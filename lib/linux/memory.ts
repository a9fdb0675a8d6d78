/** Memory and device mappings: JavaScript's side of what the addon keeps behind integer handles. */
import type { DeviceMapping, Memory } from '../kernel';
import type { Addon, NativeMemory } from './addon';

// The safety net for objects that were dropped without free() or unmap().
const dropped = new FinalizationRegistry<() => void>((giveUp) => giveUp());

const GONE = -1;

export class LinuxMemory implements Memory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly address: bigint;
  readonly length: number;
  readonly fd: number;
  #handle: number;

  constructor(
    private readonly addon: Addon,
    native: NativeMemory,
  ) {
    const { handle } = native;
    this.#handle = handle;
    this.bytes = new Uint8Array(native.buffer);
    this.address = native.address;
    this.length = native.length;
    this.fd = native.fd;
    dropped.register(this, () => addon.release(handle), this);
  }

  /** The addon's name for it; -1 after free(). */
  get handle(): number {
    return this.#handle;
  }

  free(): void {
    if (this.#handle === GONE) return;
    this.addon.free(this.#handle, this.bytes.buffer);
    this.#handle = GONE;
    dropped.unregister(this);
  }
}

/**
 * Accesses go straight to the device. One that its function does not answer, such as to a BAR while memory decoding
 * is off in its command register, is a bus error (SIGBUS), which ends the process.
 */
export class LinuxDeviceMapping implements DeviceMapping {
  constructor(
    private readonly addon: Addon,
    private handle: number,
    readonly length: number,
  ) {
    dropped.register(this, () => addon.unmap(handle), this);
  }

  load(offset: number, width: 1 | 2 | 4): number {
    return this.addon.load(this.handle, offset, width);
  }

  load64(offset: number): bigint {
    return this.addon.load64(this.handle, offset);
  }

  store(offset: number, width: 1 | 2 | 4, value: number): void {
    this.addon.store(this.handle, offset, width, value);
  }

  store64(offset: number, value: bigint): void {
    this.addon.store64(this.handle, offset, value);
  }

  storeBlock(offset: number, bytes: Uint8Array): number {
    return this.addon.storeBlock(this.handle, offset, bytes);
  }

  unmap(): void {
    if (this.handle === GONE) return;
    this.addon.unmap(this.handle);
    this.handle = GONE;
    dropped.unregister(this);
  }
}
