/** A random history of one machine: everything a program can do to what devices reach, and DMA in between. */
import { Iommu, type Device, type DmaBuffer, type FaultQueue } from '../../lib';
import type { Random } from '../../scripts/conformance/random';
import { IsolationModel, PAGE } from './model';
import type { TestDevice } from './devices';
import type { Route } from './prober';
import { GuestSpace, RootSpace, SoftSpace, type Rights, type TestSpace } from './spaces';
import type { World } from './world';

const BUFFER_PAGES = 3;
/** Pages of I/O address space that are used: few, so that things meet; two of them beyond 4 GiB. */
const PAGES = [0x10, 0x11, 0x12, 0x13, 0x200, 0x201, 0x202, 0x10_0000, 0x10_0001];

interface Bound {
  readonly tested: TestDevice;
  readonly device: Device;
  readonly owner: number;
  readonly cookie: bigint;
}

type Step =
  | 'bind'
  | 'close-device'
  | 'space'
  | 'nested'
  | 'guest'
  | 'close-space'
  | 'buffer'
  | 'close-buffer'
  | 'map'
  | 'unmap'
  | 'attach'
  | 'detach'
  | 'fault'
  | 'dma';

const WEIGHTS: readonly (readonly [Step, number])[] = [
  ['bind', 3],
  ['close-device', 1],
  ['space', 2],
  ['nested', 2],
  ['guest', 3],
  ['close-space', 1],
  ['buffer', 2],
  ['close-buffer', 1],
  ['map', 10],
  ['unmap', 5],
  ['attach', 6],
  ['detach', 3],
  ['fault', 3],
  ['dma', 20],
];

const BEGINNING: readonly Step[] = [
  ...['bind', 'bind', 'space', 'space', 'buffer', 'buffer', 'map', 'map', 'nested', 'guest'],
  ...['map', 'map', 'map', 'map', 'attach', 'attach', 'attach', 'attach', 'map', 'map'],
] as Step[];

export class History {
  readonly model: IsolationModel;
  /** What was done, for a report. */
  readonly log: string[] = [];
  /** DMA that went through at least in part, and DMA that did not. */
  passed = 0;
  refused = 0;
  faults = 0;
  /** Two programs' worth of /dev/iommu: nothing of one is the other's. */
  readonly #iommus: Iommu[];
  readonly #queues: FaultQueue[];
  readonly #bound = new Map<string, Bound>();
  readonly #spaces = new Map<number, TestSpace>();
  readonly #buffers = new Map<number, { owner: number; object: DmaBuffer }>();
  #next = 1;

  constructor(
    private readonly world: World,
    private readonly random: Random,
  ) {
    this.model = new IsolationModel(world.secondStage, world.software);
    this.#iommus = [0, 1].map(() => Iommu.open({ backend: world.machine }));
    this.#queues = this.#iommus.map((iommu) => iommu.createFaultQueue());
  }

  run(steps: number): void {
    // Something to begin with, or most histories would be about nothing.
    for (const step of BEGINNING) this.#step(step);
    for (let i = 0; i < steps; i++) this.#step(this.random.weighted(WEIGHTS));
    this.check();
  }

  close(): void {
    for (const { tested, device, owner } of this.#bound.values()) tested.close(device, this.#iommus[owner]!);
    for (const iommu of this.#iommus) iommu.close();
  }

  /** Every buffer holds what the model says: nothing was written but through a slot. */
  check(): void {
    for (const [id, { object }] of this.#buffers) {
      if (!Buffer.from(object.bytes).equals(this.model.buffers.get(id)!))
        this.#fail(`buffer ${id} was written to`);
    }
  }

  #fail(what: string): never {
    throw new Error(`${what}, after:\n${this.log.join('\n')}`);
  }

  #step(step: Step): void {
    switch (step) {
      case 'bind':
        return this.#bind();
      case 'close-device':
        return this.#closeDevice();
      case 'space':
        return this.#createRoot();
      case 'nested':
        return this.#createNested();
      case 'guest':
        return this.#createGuest();
      case 'close-space':
        return this.#closeSpace();
      case 'buffer':
        return this.#createBuffer();
      case 'close-buffer':
        return this.#closeBuffer();
      case 'map':
        return this.#map();
      case 'unmap':
        return this.#unmap();
      case 'attach':
        return this.#attach();
      case 'detach':
        return this.#detach();
      case 'fault':
        return this.#fault();
      default:
        return this.#dma();
    }
  }

  /** The first program has most of what there is, so that its things meet. */
  #owner(): number {
    return this.random.oneIn(6) ? 1 : 0;
  }

  #pick<K, V>(map: ReadonlyMap<K, V>): [K, V] | undefined {
    return map.size === 0 ? undefined : this.random.pick([...map]);
  }

  #bind(): void {
    const [name, tested] = this.random.pick([...this.world.devices]);
    if (this.#bound.has(name)) return;
    const owner = this.#owner();
    const cookie = BigInt(this.#next++);
    const device = tested.bind(this.#iommus[owner]!, cookie);
    this.#bound.set(name, { tested, device, owner, cookie });
    this.log.push(`bind ${name} to ${owner}`);
  }

  #closeDevice(): void {
    const [name, bound] = this.#pick(this.#bound) ?? [];
    if (name === undefined || bound === undefined) return;
    bound.tested.close(bound.device, this.#iommus[bound.owner]!);
    this.#bound.delete(name);
    this.model.removeDevice(name);
    this.log.push(`close ${name}`);
  }

  #createRoot(): void {
    const owner = this.#owner();
    const nestParent = !this.world.secondStage && this.random.oneIn(2);
    const faults = nestParent ? undefined : this.#faults(owner);
    const object = this.#iommus[owner]!.createAddressSpace({ pasid: true, nestParent, faults });
    this.#add(new RootSpace(this.#next++, owner, faults !== undefined, object));
  }

  #createNested(): void {
    const parent = this.#pick(this.#spaces)?.[1];
    if (!(parent instanceof RootSpace || parent instanceof SoftSpace)) return;
    const faults = this.#faults(parent.owner);
    const options = { parent: parent.object, pasid: true, faults };
    const object = this.#iommus[parent.owner]!.createAddressSpace(options);
    this.#add(new SoftSpace(this.#next++, parent, faults !== undefined, object));
  }

  #createGuest(): void {
    const parents = [...this.#spaces.values()].filter(
      (space) => space instanceof RootSpace && space.nestParent,
    );
    const parent = this.random.pick([...parents, undefined]) as RootSpace | undefined;
    const used = [...this.#spaces.values()].some(
      (space) => space instanceof GuestSpace && space.parent === parent,
    );
    if (!parent || used) return;
    this.#add(new GuestSpace(this.#next++, this.#iommus[parent.owner]!, parent));
  }

  #faults(owner: number): FaultQueue | undefined {
    return this.random.oneIn(2) ? this.#queues[owner] : undefined;
  }

  #add(space: TestSpace): void {
    const { id, owner, parent, faults } = space;
    this.#spaces.set(id, space);
    this.model.spaces.set(id, { parent: parent?.id, pages: new Map() });
    const where = `${parent ? ` on ${parent.id}` : ''}${faults ? ', faults' : ''}`;
    this.log.push(`${space.constructor.name} ${id} of ${owner}${where}`);
  }

  #closeSpace(): void {
    const [id, space] = this.#pick(this.#spaces) ?? [];
    if (id === undefined || space === undefined) return;
    space.close();
    for (const gone of this.model.removeSpace(id)) this.#spaces.delete(gone);
    this.log.push(`close space ${id}`);
  }

  #createBuffer(): void {
    const owner = this.#owner();
    const id = this.#next++;
    const object = this.#iommus[owner]!.allocateDma(BUFFER_PAGES * PAGE);
    // Each word says whose it is.
    new Uint32Array(object.bytes.buffer, object.bytes.byteOffset, object.bytes.length / 4).forEach(
      (_, i, words) => (words[i] = (id << 12) | i),
    );
    this.#buffers.set(id, { owner, object });
    this.model.buffers.set(id, Uint8Array.from(object.bytes));
    this.log.push(`buffer ${id} of ${owner}`);
  }

  #closeBuffer(): void {
    const [id, buffer] = this.#pick(this.#buffers) ?? [];
    if (id === undefined || buffer === undefined) return;
    this.check();
    buffer.object.close();
    this.#buffers.delete(id);
    this.model.removeBuffer(id);
    this.log.push(`close buffer ${id}`);
  }

  #map(): void {
    const space = this.#pick(this.#spaces)?.[1];
    if (space) this.#mapIn(space, this.random.pick(PAGES), 1 + this.random.below(3));
  }

  /** Maps pages where nothing is mapped; false if there was no room, or nothing to map. */
  #mapIn(space: TestSpace, first: number, count: number): boolean {
    const { pages } = this.model.spaces.get(space.id)!;
    const wanted = Array.from({ length: count }, (_, i) => first + i);
    const found = this.#pick(this.#buffersOf(space.owner));
    if (wanted.some((page) => pages.has(page)) || (!space.parent && !found)) return false;
    const rights = this.random.pick(space.rights);
    const page = this.random.below(BUFFER_PAGES - count + 1);
    const buffer = found && { id: found[0], object: found[1], page };
    const parentPage = this.#pageOf(space.parent);
    space.map(first, count, { buffer, parentPage }, rights).forEach((to, i) => pages.set(first + i, to));
    const from = space.parent
      ? `page ${parentPage.toString(16)} of ${space.parent.id}`
      : `buffer ${found?.[0]}`;
    this.log.push(`map ${count} from ${from} at page ${first.toString(16)} of ${space.id} ${text(rights)}`);
    return true;
  }

  /** Most of the time one that the space maps. */
  #pageOf(space: TestSpace | undefined): number {
    const mapped =
      space && !this.random.oneIn(4) ? this.#pick(this.model.spaces.get(space.id)!.pages) : undefined;
    return mapped?.[0] ?? this.random.pick(PAGES);
  }

  #buffersOf(owner: number): ReadonlyMap<number, DmaBuffer> {
    return new Map([...this.#buffers].filter(([, b]) => b.owner === owner).map(([id, b]) => [id, b.object]));
  }

  #unmap(): void {
    const space = this.#pick(this.#spaces)?.[1];
    if (!space) return;
    const removed = space.unmap(this.random);
    if (!removed) return;
    const { pages } = this.model.spaces.get(space.id)!;
    for (let i = 0; i < removed.count; i++) pages.delete(removed.first + i);
    this.log.push(`unmap ${removed.count} at page ${removed.first.toString(16)} of ${space.id}`);
  }

  #attach(): void {
    const [name, bound] = this.#pick(this.#bound) ?? [];
    const space = this.#pick(this.#spaces)?.[1];
    if (name === undefined || !bound || !space || bound.owner !== space.owner) return;
    if (!bound.tested.takes(space)) return;
    const pasid = this.random.pick(bound.tested.pasids);
    const replace = bound.device.attached(pasid) !== undefined;
    bound.device.attach(space.object, { pasid, replace });
    this.model.slots.set(slotOf(name, pasid), space.id);
    this.log.push(`${replace ? 'replace' : 'attach'} ${slotOf(name, pasid)} with ${space.id}`);
  }

  #detach(): void {
    const [name, bound] = this.#pick(this.#bound) ?? [];
    if (name === undefined || !bound) return;
    const pasid = this.random.pick(bound.tested.pasids);
    if (bound.device.attached(pasid) === undefined) return;
    bound.device.detach({ pasid });
    this.model.slots.delete(slotOf(name, pasid));
    this.log.push(`detach ${slotOf(name, pasid)}`);
  }

  /** A device asks for a page; what arrives names the slot, and is answered, often with a page. */
  #fault(): void {
    const [name, bound] = this.#pick(this.#bound) ?? [];
    if (name === undefined || !bound) return;
    const pasid = this.random.pick(bound.tested.pasids);
    const space = this.#spaces.get(this.model.slots.get(slotOf(name, pasid)) ?? 0);
    const page = this.random.pick(PAGES);
    const asks = bound.tested.asksFor(this.model.reach(slotOf(name, pasid), page));
    bound.tested.ask(page * PAGE, pasid, 1 + this.random.below(100));
    this.world.machine.idle();
    this.log.push(`${slotOf(name, pasid)} asks for page ${page.toString(16)}`);
    const arrived = this.#queues.map((queue) => queue.drain());
    const [fault] = arrived.flat();
    const expected = space?.faults && asks ? 1 : 0;
    if (arrived.flat().length !== expected)
      this.#fail(`${arrived.flat().length} faults arrived, not ${expected}`);
    if (!fault || !space) return;
    this.faults++;
    const named = [fault.cookie, fault.ioasid, fault.pasid, Number(fault.address)];
    const wanted = [bound.cookie, space.object.ioasid, pasid, page * PAGE];
    if (named.join() !== wanted.join()) this.#fail(`the fault names ${named.join()}, not ${wanted.join()}`);
    if (this.random.oneIn(2)) this.#mapIn(space, page, 1);
    fault.respond(this.random.oneIn(4) ? 'invalid' : 'success');
    this.world.machine.idle();
    this.#refuseFaults();
  }

  /** A device that still lacks its page asks again; it may, and is told no. */
  #refuseFaults(): void {
    for (;;) {
      const faults = this.#queues.flatMap((queue) => queue.drain());
      if (faults.length === 0) return;
      for (const fault of faults) fault.respond('invalid');
      this.world.machine.idle();
    }
  }

  /** Most of the time a slot that is attached, and a page that is mapped there. */
  #target(): { name: string; pasid: number | undefined; page: number } {
    const [device, { pasids }] = this.random.pick([...this.world.devices]);
    const any = { name: device, pasid: this.random.pick(pasids), page: this.random.pick(PAGES) };
    const [slot, space] = this.#pick(this.model.slots) ?? [];
    if (slot === undefined || space === undefined || this.random.oneIn(4)) return any;
    const [name, pasid] = slot.split(' ') as [string, string];
    const page = this.#pick(this.model.spaces.get(space)!.pages)?.[0] ?? any.page;
    return { name, pasid: pasid === 'rid' ? undefined : Number(pasid), page };
  }

  #dma(): void {
    const { name, pasid, page } = this.#target();
    const slot = slotOf(name, pasid);
    const address = page * PAGE + this.random.pick([0, 1, 0x800, 0xff8]);
    const length = this.random.pick([1, 8, 0x900, 2 * PAGE]);
    const write = this.random.oneIn(2);
    const route: Route = this.random.oneIn(2) ? 'cached' : 'untranslated';
    const what = `${slot} ${write ? 'writes' : 'reads'} ${length} bytes at ${address.toString(16)}, ${route}`;
    this.log.push(what);
    const bytes = new Uint8Array(length);
    if (write) bytes.fill(this.random.bits());
    const done = this.world.devices.get(name)!.transfer(write, address, bytes, pasid, route);
    if (done > 0) this.passed++;
    else this.refused++;
    if (write) {
      const allowed = this.model.write(slot, address, bytes);
      if (done !== allowed) this.#fail(`${done} bytes were written, not ${allowed}`);
    } else {
      const allowed = this.model.read(slot, address, length);
      if (done !== allowed.length) this.#fail(`${done} bytes were read, not ${allowed.length}`);
      if (!Buffer.from(bytes.subarray(0, done)).equals(allowed)) this.#fail('other bytes were read');
      if (bytes.subarray(done).some((byte) => byte !== 0))
        this.#fail('bytes were read that no mapping allows');
    }
  }
}

const slotOf = (name: string, pasid: number | undefined): string => `${name} ${pasid ?? 'rid'}`;
const text = ({ read, write }: Rights): string => `${read ? 'r' : ''}${write ? 'w' : ''}`;
