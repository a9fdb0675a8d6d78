/** The portal of a mediated device, mapped by a user: it takes commands by ENQCMD, which cannot be mediated. */
import { BLOCK_BYTES, type DeviceMapping } from '../../../kernel';
import type { Enqueued, EnqueueingVm, EnqueueTarget } from '../../cpu/enqcmd';
import { checkAccess } from '../arguments';
import type { MdevDevice } from './device';

const PAGE = 4096;

export class Portal implements DeviceMapping, EnqueueTarget {
  readonly length = PAGE;
  #mapped = true;

  /** `vm`: the virtual machine that the device is in, while its processors translate PASIDs. */
  constructor(
    readonly mdev: MdevDevice,
    readonly vm: () => object | undefined,
  ) {}

  /** In another machine, whose processors may not translate, a guest could name any PASID of the hardware's. */
  belongsTo(vm: EnqueueingVm): boolean {
    return this.vm() === vm;
  }

  enqueue(offset: number, bytes: Uint8Array): Enqueued {
    checkAccess(offset, bytes.length, this.length);
    // Once it is blocked again the mapping is gone, as with any that a driver revokes.
    if (!this.#mapped || !this.vm()) return 'fault';
    const { engine } = this.mdev.parent;
    const taken = engine.enqueue(engine.portalBar, this.mdev.channel * PAGE + offset, bytes);
    return taken ? 'accepted' : 'retry';
  }

  load(offset: number, width: 1 | 2 | 4): number {
    this.#check(offset, width);
    return 2 ** (8 * width) - 1;
  }

  load64(offset: number): bigint {
    this.#check(offset, 8);
    return (1n << 64n) - 1n;
  }

  store(offset: number, width: 1 | 2 | 4): void {
    this.#check(offset, width);
  }

  store64(offset: number): void {
    this.#check(offset, 8);
  }

  /** It takes commands by ENQCMD alone. */
  storeBlock(offset: number): number {
    this.#check(offset, BLOCK_BYTES);
    return 0;
  }

  unmap(): void {
    this.#mapped = false;
  }

  #check(offset: number, width: number): void {
    if (!this.#mapped) throw new Error('the mapping is gone');
    checkAccess(offset, width, this.length);
  }
}
