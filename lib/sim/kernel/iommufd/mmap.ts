/** Memory of its objects that an iommufd lets programs map, and where in the file it is (mt_mmap in the kernel). */
import { BLOCK_BYTES, PROT_READ, PROT_WRITE, type DeviceMapping } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import { checkAccess } from '../arguments';
import type { OpenFile } from '../file';
import { PAGE_SIZE } from '../user-memory';
import type { IommufdObject } from './object';

interface Offer {
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly owner: IommufdObject;
  readonly memory: ArrayBuffer;
}

export class MmapTable {
  /** In the order of their offsets. */
  readonly #offers: Offer[] = [];

  /** Finds the lowest place for `memory`, whole pages; the first page stays free, so that no offset is 0. */
  add(owner: IommufdObject, memory: ArrayBuffer): number {
    let offset = PAGE_SIZE;
    let index = 0;
    for (const other of this.#offers) {
      if (other.offset - offset >= memory.byteLength) break;
      offset = other.offset + other.memory.byteLength;
      index++;
    }
    this.#offers.splice(index, 0, { offset, owner, memory });
    return offset;
  }

  remove(offset: number): void {
    this.#offers.splice(
      this.#offers.findIndex((offer) => offer.offset === offset),
      1,
    );
  }

  /** mmap(2) of `file`: exactly what was offered, or ENXIO. The mapping keeps its object and the file. */
  map(file: OpenFile, offset: number, length: number, protection: number): DeviceMapping | number {
    const offer = this.#offers.find((each) => each.offset === offset);
    const rounded = Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
    if (!offer || offer.memory.byteLength !== rounded) return -errno.ENXIO;
    return new PageMapping(offer, file, length, protection);
  }
}

class PageMapping implements DeviceMapping {
  readonly #view: DataView;
  #mapped = true;

  constructor(
    readonly offer: Offer,
    readonly file: OpenFile,
    readonly length: number,
    readonly protection: number,
  ) {
    this.#view = new DataView(offer.memory);
    offer.owner.users++;
    file.get();
  }

  load(offset: number, width: 1 | 2 | 4): number {
    this.#check(offset, width, PROT_READ);
    if (width === 1) return this.#view.getUint8(offset);
    return width === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint32(offset, true);
  }

  load64(offset: number): bigint {
    this.#check(offset, 8, PROT_READ);
    return this.#view.getBigUint64(offset, true);
  }

  store(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#check(offset, width, PROT_WRITE);
    if (width === 1) this.#view.setUint8(offset, value);
    else if (width === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint32(offset, value, true);
  }

  store64(offset: number, value: bigint): void {
    this.#check(offset, 8, PROT_WRITE);
    this.#view.setBigUint64(offset, value, true);
  }

  storeBlock(offset: number, bytes: Uint8Array): number {
    this.#check(offset, BLOCK_BYTES, PROT_WRITE);
    const { buffer, byteOffset } = this.#view;
    new Uint8Array(buffer, byteOffset + offset, BLOCK_BYTES).set(bytes);
    return 0;
  }

  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.offer.owner.users--;
    this.file.put();
  }

  #check(offset: number, width: number, needed: number): void {
    if (!this.#mapped) throw new TypeError('the mapping is gone');
    if (!(this.protection & needed)) throw new TypeError('the mapping does not allow the access');
    checkAccess(offset, width, this.length);
  }
}
