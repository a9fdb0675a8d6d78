/**
 * The native addon (native/): what it exports, and loading it on demand. Only this folder uses it; importing this
 * file loads nothing.
 */
import bindings from 'bindings';

/** Memory as the addon allocates it. */
export interface NativeMemory {
  /** Names the memory to `free` and `release`. */
  readonly handle: number;
  readonly buffer: ArrayBuffer;
  readonly address: bigint;
  readonly length: number;
  readonly fd: number;
}

/** A pump as the addon makes it. The eventfds are its own. */
export interface NativePump {
  readonly handle: number;
  /** Rings for the consumer. */
  readonly doorbell: number;
  /** Rings for the pump: write an eventfd's 8 bytes. */
  readonly kick: number;
}

/**
 * Every function returns what the system call does, or -errno, and checks the types and ranges of its arguments.
 * Handles are small integers of 0 or more, each kind counting for itself, good until given up.
 */
export interface Addon {
  readonly pageSize: number;
  open(path: string, flags: number): number;
  close(fd: number): number;
  /** Knows nothing of how many bytes the kernel reads or writes at `argument`: see `LinuxKernel.ioctl`. */
  ioctl(fd: number, request: number, argument?: Uint8Array | number): number;
  /** The page that `runCalls` is about, CALL_PAGE_BYTES long, or -errno. Stays where it is while the environment lives. */
  callPage(): ArrayBuffer | number;
  /** Makes the calls that the page describes: see LinuxCallPage. */
  runCalls(): void;
  /** Takes a descriptor that an ioctl returned: closed with the environment, as those of open and eventfd. */
  adopt(fd: number): void;
  read(fd: number, bytes: Uint8Array): number;
  write(fd: number, bytes: Uint8Array): number;
  pread(fd: number, bytes: Uint8Array, offset: number): number;
  pwrite(fd: number, bytes: Uint8Array, offset: number): number;
  poll(fd: number, events: number): number;
  eventfd(initial: number, flags: number): number;
  /** Another descriptor for the same open file. */
  duplicate(fd: number): number;
  addressOf(bytes: ArrayBufferView): bigint;

  allocate(length: number, hugePages: boolean, memfd: boolean): NativeMemory | number;
  /** Memory over a memfd that is there already; with a descriptor of its own. */
  mapMemory(fd: number, length: number): NativeMemory | number;
  /** Detaches `buffer`, closes the memfd and gives the memory back. */
  free(handle: number, buffer: ArrayBuffer): void;
  /** Gives up the handle alone: the memory goes when its ArrayBuffer is collected. */
  release(handle: number): void;

  /** A handle for the functions below, or -errno. */
  mmap(fd: number, offset: number, length: number, protection: number): number;
  load(mapping: number, offset: number, width: number): number;
  load64(mapping: number, offset: number): bigint;
  store(mapping: number, offset: number, width: number, value: number): void;
  store64(mapping: number, offset: number, value: bigint): void;
  /** 0 or -EOPNOTSUPP. */
  storeBlock(mapping: number, offset: number, bytes: Uint8Array): number;
  unmap(mapping: number): void;

  /** A handle for the functions below, or -errno. */
  watch(fd: number, events: number, callback: (ready: number) => void): number;
  /** Of an eventfd without EFD_SEMAPHORE, which is read behind each callback. */
  watchCounter(fd: number, callback: () => void): number;
  closeWatch(watch: number): void;
  refWatch(watch: number): void;
  unrefWatch(watch: number): void;

  /** For the ring in the memory that `memory` names; what it does is in lib/rings/pump.ts. */
  pump(fd: number, memory: number, limit: number): NativePump | number;
  /** Starts its thread. */
  runPump(pump: number): number;
  /** With `fill` what `pass` of lib/rings/pump.ts says, without what `flush` does. */
  passPump(pump: number, fill: boolean): number;
  pausePump(pump: number, paused: boolean): void;
  fillSlot(pump: number, device: number, pasid: number, ioasid: number, cookie: bigint): void;
  emptySlot(pump: number, device: number, pasid: number): void;
  isCurrentGroup(pump: number, cookie: number, generation: number): boolean;
  closePump(pump: number): void;
}

/** Why there is no addon, for people. */
export interface Unavailable {
  readonly reason: string;
}

let loaded: { readonly addon: Addon } | Unavailable | undefined;

/** The addon, or why there is none. The first call decides. */
export function loadAddon(): { readonly addon: Addon } | Unavailable {
  loaded ??= load();
  return loaded;
}

function load(): { readonly addon: Addon } | Unavailable {
  if (process.platform !== 'linux') return { reason: `${process.platform} is not Linux` };
  try {
    const addon: Addon = bindings({ bindings: 'iommufd', module_root: bindings.getRoot(__filename) });
    return { addon };
  } catch (error) {
    // `bindings` lists where it looked when it found no file; all else is a file that does not load.
    const absent = typeof error === 'object' && error !== null && 'tries' in error;
    if (absent) return { reason: 'the native addon is not built (to build it: npx iommufd build)' };
    return {
      reason: `the native addon does not load (to rebuild it: npx iommufd build): ${String(error)}`,
    };
  }
}
