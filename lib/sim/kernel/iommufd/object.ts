/** The objects of one iommufd: ids, reference counts, destruction (drivers/iommu/iommufd/main.c's role). */
import { errno } from '../../../uapi/errno';

/** Anything that has an id. */
export abstract class IommufdObject {
  /** 0 while the object is not in the table. */
  id = 0;
  /** Its id is taken, but nobody can use it yet: the call that makes it has not returned. */
  unfinished = false;
  /** Other objects, or an open file, that need this one: IOMMU_DESTROY is EBUSY while there are any. */
  users = 0;

  /** Undoes what the object did and drops its references to others. */
  abstract destroy(): void;
}

type Class<T> = abstract new (...args: never[]) => T;

export class ObjectTable {
  readonly #objects = new Map<number, IommufdObject>();
  /** Ids that nobody gets any more: their objects went away under the user's hands. */
  readonly #tombstones = new Set<number>();
  /** Every id below this one is in use. */
  #lowestFree = 1;

  /** Gives `object` the lowest free id, 1 or more. */
  add<T extends IommufdObject>(object: T): T {
    while (this.#objects.has(this.#lowestFree) || this.#tombstones.has(this.#lowestFree)) this.#lowestFree++;
    object.id = this.#lowestFree;
    this.#objects.set(object.id, object);
    return object;
  }

  remove(object: IommufdObject): void {
    this.#objects.delete(object.id);
    this.#lowestFree = Math.min(this.#lowestFree, object.id);
    object.id = 0;
  }

  /** Destroys an object that the user did not: its id stays out of use, so that no other is taken for it. */
  bury(object: IommufdObject): void {
    this.#tombstones.add(object.id);
    this.remove(object);
    object.destroy();
  }

  /** The object of that id and class, or undefined: both "no such id" and "another class" are ENOENT to users. */
  get<T extends IommufdObject>(id: number, type: Class<T>): T | undefined {
    const object = this.#objects.get(id);
    return object instanceof type && !object.unfinished ? object : undefined;
  }

  /** IOMMU_DESTROY: ENOENT, or EBUSY while somebody uses the object. */
  destroy(id: number): number {
    const object = this.#objects.get(id);
    if (!object) return -errno.ENOENT;
    if (object.users > 0) return -errno.EBUSY;
    this.remove(object);
    object.destroy();
    return 0;
  }

  /** Destroys everything, users before what they use: the last reference to the file is gone. */
  destroyAll(): void {
    while (this.#objects.size > 0) {
      const before = this.#objects.size;
      // One that goes may take others with it: those are not visited any more.
      for (const object of this.#objects.values()) {
        if (object.users > 0) continue;
        this.remove(object);
        object.destroy();
      }
      if (this.#objects.size === before) throw new Error('iommufd objects hold each other');
    }
  }

  /** Ids in use, or out of use for good. */
  get size(): number {
    return this.#objects.size + this.#tombstones.size;
  }

  [Symbol.iterator](): IterableIterator<IommufdObject> {
    return this.#objects.values();
  }
}
