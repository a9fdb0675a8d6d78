/**
 * A unit under random changes of its tables, for coherent.test.ts: functions with PASIDs, tables that refer to each other at
 * random, and software that changes any entry and follows it with the least invalidation that section 6.5.3 of the VT-d
 * specification asks for. Worlds made from the same seed do the same, whatever their units answer.
 */
import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_WRITE,
  NO_PASID,
  TranslationCompletion,
} from '../../../lib/sim/bus';
import {
  encodeContextCacheInvalidate,
  encodeIotlbInvalidate,
  encodePasidCacheInvalidate,
  encodePasidIotlbInvalidate,
  G_DEVICE,
  G_DOMAIN,
  G_GLOBAL,
  G_PAGE,
  PASID_CACHE_G_GLOBAL,
  PASID_CACHE_G_PASID,
  PASID_IOTLB_G_PAGE,
  PASID_IOTLB_G_PASID,
  PGTT_FIRST_STAGE,
  PGTT_NESTED,
  PGTT_SECOND_STAGE,
  joinHalves,
  StaleUse,
} from '../../../lib/sim/vtd';
import { Random } from '../../../scripts/conformance/random';
import { Bench, high, low, RID } from './bench';

export type Kind = 'second' | 'first' | 'nested';

/** What software does after a change, and the unit before a request. */
export interface Manners {
  readonly kind: Kind;
  readonly seed: number;
  /** False: software invalidates nothing. */
  readonly invalidates: boolean;
  /** Everything cached is dropped before each request. */
  readonly fresh: boolean;
  readonly strict?: (use: StaleUse) => void;
}

/** Where entries are, in every table; addresses are made of these. */
const INDICES = [0, 1, 511];
/** Index in the top second-stage table of the guest's own tables. */
const GUEST_TABLES = 7;
const NOWHERE = 0x3f_0000_0000;
const PAGE_SIZE = 1 << 7;
const PASID_OF = { second: PGTT_SECOND_STAGE, first: PGTT_FIRST_STAGE, nested: PGTT_NESTED };

/** Tables of a stage by level, from 1; the last are the roots. */
interface Stage {
  readonly first: boolean;
  readonly pool: readonly (readonly number[])[];
}

/** One PASID of a function, and what its PASID table entry says. */
interface User {
  readonly rid: number;
  readonly pasid: number;
  domain: number;
  root: number;
}

export interface Answer {
  readonly rid: number;
  readonly pasid: number;
  readonly address: bigint;
  readonly access: number;
  /** As the unit gave it: of a translation request, the completion. */
  readonly result: number | TranslationCompletion;
  readonly faults: number[];
}

const levelsOf = ({ pool }: Stage): number => pool.length - 1;

export class World extends Bench {
  private readonly random: Random;
  private readonly firstStage: Stage | null;
  private readonly secondStage: Stage | null;
  private readonly users: User[];
  private readonly marks: boolean;
  /** Nested: the guest's pages for tables, and where they lie. */
  private readonly guests = new Map<number, { host: number | undefined; leaf: number; level: number }>();
  private readonly absentContexts = new Set<number>();
  private pending: Int32Array[] = [];
  /** All tables lie between. */
  private readonly start = this.page();
  private readonly end: number;

  constructor(private readonly manners: Manners) {
    super({ ERS: 1, CM: cachingMode(manners) }, manners.strict, !manners.fresh);
    const { kind, seed } = manners;
    this.random = new Random(seed);
    this.marks = this.random.oneIn(2);
    this.secondStage = kind === 'first' ? null : this.stage(false, this.random.pick([3, 4, 5]));
    this.firstStage = kind === 'second' ? null : this.stage(true, this.random.pick([4, 5]));
    for (const rid of [RID, RID + 8]) this.context(rid, { DTE: 1 });
    this.users = [
      { rid: RID, pasid: 0, domain: 0, root: 0 },
      { rid: RID, pasid: 3, domain: 0, root: 0 },
      { rid: RID + 8, pasid: 5, domain: 1, root: 1 },
    ];
    if (kind === 'nested') this.placeGuestTables();
    for (const user of this.users) this.setUser(user);
    this.end = this.page();
  }

  /** Every table, byte for byte. */
  tables(): Buffer {
    const bytes = Buffer.alloc(this.end - this.start);
    expect(this.memory.copyOut(this.start, bytes, 0, bytes.length)).toBe(true);
    return bytes;
  }

  /** A few changes, and what has to follow them. */
  change(): void {
    const { random, firstStage, secondStage } = this;
    for (let count = 1 + random.below(3); count > 0; count--) {
      const what = random.below(16);
      if (what === 0) this.moveUser(random.pick(this.users));
      else if (what === 1) this.toggleContext(random.pick(this.users).rid);
      else if (what <= 3 && this.guests.size > 0) this.moveGuestTable();
      else if (firstStage !== null && (secondStage === null || what < 11)) this.changeEntry(firstStage);
      else this.changeEntry(secondStage!);
    }
    for (; this.manners.invalidates && this.pending.length > 0; this.pending.splice(0, 100)) {
      expect(this.complete(...this.pending.slice(0, 100))).toBe(true);
    }
    this.pending = [];
  }

  /** A request of one of the users: what came of it, and the faults recorded. */
  ask(): Answer {
    const { random } = this;
    const { rid, pasid } = random.pick(this.users);
    const prefix = pasid === 0 ? NO_PASID : pasid;
    const kinds = [0, 0, ACCESS_WRITE, ACCESS_EXECUTE, ACCESS_PRIVILEGED, ACCESS_WRITE | ACCESS_PRIVILEGED];
    const access = random.pick(kinds) & (prefix < 0 ? ACCESS_WRITE : -1);
    const address = this.randomAddress(this.firstStage ?? this.secondStage!) + BigInt(8 * random.below(512));
    const translation = random.oneIn(6);
    if (this.manners.fresh) {
      this.complete(
        encodeContextCacheInvalidate({ G: G_GLOBAL }),
        encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL }),
        encodeIotlbInvalidate({ G: G_GLOBAL }),
      );
    }
    const result = translation
      ? this.request(address, access, prefix, rid)
      : this.translate(address, access, prefix, rid);
    return { rid, pasid: prefix, address, access, result, faults: this.takeFaults() };
  }

  private stage(first: boolean, levels: number): Stage {
    const pool = [[] as number[]];
    for (let level = 1; level <= levels; level++) pool.push([1, 2, 3].map(() => this.page()));
    const stage = { first, pool };
    for (let level = 1; level <= levels; level++) {
      for (const table of pool[level]!) {
        for (const index of INDICES) this.memory.write64(table + 8 * index, ...this.entry(stage, level));
      }
    }
    return stage;
  }

  /** An entry for a table of `level`, in halves. */
  private entry(stage: Stage, level: number): [high: number, low: number] {
    const { random } = this;
    if (random.oneIn(6)) return [0, 0];
    const { first } = stage;
    const all = first ? 7 : 3;
    let flags = random.oneIn(4) ? random.below(all + 1) : all;
    if (first) flags |= 1;
    const wide = first && random.oneIn(8) ? 1 << 31 : 0;
    const reserved = random.oneIn(30) ? 1 << 18 : 0;
    if (level > 1 && (level > 3 || !random.oneIn(4))) {
      const tables = stage.pool[level - 1]!;
      const table = random.oneIn(30) ? NOWHERE : this.pointerTo(first, level - 1, random.pick(tables));
      return [Math.floor(table / 2 ** 32) | wide | reserved, table | flags];
    }
    const target = this.target(first, level);
    return [high(target) | wide | reserved, low(target) | flags | (level > 1 ? PAGE_SIZE : 0)];
  }

  private target(first: boolean, level: number): bigint {
    const shift = BigInt(3 + 9 * level);
    if (first && this.secondStage !== null) return (this.randomAddress(this.secondStage) >> shift) << shift;
    if (this.random.oneIn(30)) return (0xfee0_0000n >> shift) << shift;
    return BigInt(1 + this.random.below(2 ** 11)) << shift;
  }

  /** How an entry names a table: nested, by a guest page that it is at. */
  private pointerTo(first: boolean, level: number, table: number): number {
    if (!first || this.secondStage === null || this.guests.size === 0) return table;
    return this.random.pick([...this.guests].filter(([, guest]) => guest.level === level))[0];
  }

  private randomAddress(stage: Stage): bigint {
    let address = 0n;
    for (let level = levelsOf(stage); level > 0; level--) {
      address = (address << 9n) | BigInt(this.random.pick(INDICES));
    }
    return this.canonical(stage, address << 12n);
  }

  private canonical(stage: Stage, address: bigint): bigint {
    const width = 12 + 9 * levelsOf(stage);
    return stage.first ? BigInt.asUintN(64, BigInt.asIntN(width, address)) : address;
  }

  private placeGuestTables(): void {
    const { firstStage, secondStage } = this;
    const levels = levelsOf(secondStage!);
    const roots = secondStage!.pool[levels]!;
    let guest = GUEST_TABLES * 2 ** (3 + 9 * levels);
    for (let level = 1; level <= levelsOf(firstStage!); level++) {
      for (const host of firstStage!.pool[level]!) {
        const leaf = this.map(roots[0]!, levels, BigInt(guest), host, 3, 3);
        this.guests.set(guest, { host, leaf, level });
        guest += 4096;
      }
    }
    const top = roots[0]! + 8 * GUEST_TABLES;
    for (const root of roots) this.memory.write64(root + 8 * GUEST_TABLES, 0, this.memory.read32(top));
    // Pointers are guest addresses from now on.
    for (let level = 1; level <= levelsOf(firstStage!); level++) {
      for (const table of firstStage!.pool[level]!) {
        for (const index of INDICES)
          this.memory.write64(table + 8 * index, ...this.entry(firstStage!, level));
      }
    }
  }

  /** The second stage's translation of a guest page with a table: elsewhere, or nowhere, or without a permission. */
  private moveGuestTable(): void {
    const { random } = this;
    const [page, guest] = random.pick([...this.guests]);
    const host = random.pick(this.firstStage!.pool[guest.level]!);
    // What the unit may write there would tell worlds apart in which it has marked other entries.
    const flags = random.pick([0, this.manners.invalidates ? 1 : 3, 3, 3, 3, 3]);
    guest.host = flags === 0 ? undefined : host;
    this.memory.write64(guest.leaf, 0, flags === 0 ? 0 : host | flags);
    for (const domain of [0, 1]) {
      this.pending.push(encodeIotlbInvalidate({ G: G_PAGE, DID: didOf(domain), ADDR: page, IH: 1 }));
    }
  }

  private changeEntry(stage: Stage): void {
    const { random } = this;
    const level = 1 + random.below(levelsOf(stage));
    const table = random.pick(stage.pool[level]!);
    const index = random.pick(INDICES);
    const at = table + 8 * index;
    const before = this.memory.read32(at);
    const entry = this.entry(stage, level);
    this.memory.write64(at, ...entry);
    // Without caching mode, what was not present is in no cache.
    const cached = (before & (stage.first ? 1 : 3)) !== 0 || cachingMode(this.manners) === 1;
    if (!cached && !random.oneIn(8)) return;
    const isTable = (word: number): boolean => level > 1 && (word & PAGE_SIZE) === 0 && word !== 0;
    const hint = !isTable(before) && !isTable(entry[1]) && !random.oneIn(3);
    const shift = BigInt(3 + 9 * level);
    for (const domain of [0, 1]) {
      for (const user of stage.first ? this.users : [undefined]) {
        if (user !== undefined && user.domain !== domain) continue;
        const root = user === undefined ? this.rootsOf(stage)[domain]! : this.tableAt(this.firstRoot(user));
        for (const prefix of this.pathsTo(stage, table, levelsOf(stage), root, 0n)) {
          const address = this.canonical(stage, ((prefix << 9n) | BigInt(index)) << shift);
          this.invalidate(domain, user, Number(address), 9 * (level - 1), hint);
        }
      }
    }
  }

  /** Address bits above those that index `table`, of each way from a table of `level` to it. */
  private pathsTo(
    stage: Stage,
    table: number,
    level: number,
    from: number | undefined,
    prefix: bigint,
  ): bigint[] {
    if (from === table) return [prefix];
    if (level === 1 || from === undefined) return [];
    return INDICES.flatMap((index) => {
      const word = this.memory.read32(from + 8 * index);
      if ((word & (stage.first ? 1 : 3)) === 0 || (word & PAGE_SIZE) !== 0) return [];
      const pointer = joinHalves(this.memory.read32(from + 8 * index + 4) & 0xf_ffff, word & ~0xfff);
      const next = stage.first ? this.tableAt(pointer) : pointer;
      if (next === undefined || !stage.pool[level - 1]!.includes(next)) return [];
      return this.pathsTo(stage, table, level - 1, next, (prefix << 9n) | BigInt(index));
    });
  }

  private invalidate(domain: number, user: User | undefined, ADDR: number, AM: number, hint: boolean): void {
    const { random, pending } = this;
    const IH = Number(hint);
    const DID = didOf(domain);
    if (random.oneIn(12)) pending.push(encodeIotlbInvalidate({ G: G_GLOBAL }));
    else if (user === undefined) {
      const page = { G: G_PAGE, ADDR, AM, IH };
      pending.push(encodeIotlbInvalidate({ DID, ...(random.oneIn(10) ? { G: G_DOMAIN } : page) }));
    } else {
      const page = { G: PASID_IOTLB_G_PAGE, ADDR, AM, IH };
      const all = { G: PASID_IOTLB_G_PASID };
      pending.push(
        encodePasidIotlbInvalidate({ DID, PASID: user.pasid, ...(random.oneIn(10) ? all : page) }),
      );
    }
  }

  /** Another PASID table entry. */
  private moveUser(user: User): void {
    const DID = didOf(user.domain);
    user.domain = this.random.below(2);
    user.root = this.random.below(2);
    this.setUser(user);
    this.pending.push(
      encodePasidCacheInvalidate({ G: PASID_CACHE_G_PASID, DID, PASID: user.pasid }),
      this.firstStage === null
        ? encodeIotlbInvalidate({ G: G_DOMAIN, DID })
        : encodePasidIotlbInvalidate({ G: PASID_IOTLB_G_PASID, DID, PASID: user.pasid }),
    );
  }

  private rootsOf(stage: Stage): readonly number[] {
    return stage.pool[levelsOf(stage)]!;
  }

  /** FSPTPTR of a user. */
  private firstRoot({ root }: User): number {
    const levels = levelsOf(this.firstStage!);
    const guests = [...this.guests].filter(([, { level }]) => level === levels);
    return guests[root]?.[0] ?? this.rootsOf(this.firstStage!)[root]!;
  }

  /** Where a first-stage table lies that a pointer names. */
  private tableAt(pointer: number): number | undefined {
    return this.guests.size === 0 ? pointer : this.guests.get(pointer)?.host;
  }

  private setUser(user: User): void {
    const { rid, pasid, domain } = user;
    const { firstStage, secondStage, random } = this;
    const flag = (): number => random.below(2);
    const second = secondStage && {
      AW: levelsOf(secondStage) - 2,
      SSPTPTR: this.rootsOf(secondStage)[domain]!,
      SSADE: Number(this.marks),
    };
    const first = firstStage && {
      FSPM: levelsOf(firstStage) - 4,
      FSPTPTR: this.firstRoot(user),
      SRE: 1,
      ERE: Number(!random.oneIn(4)),
      ...{ WPE: flag(), NXE: flag(), EAFE: flag(), SMEP: flag() },
    };
    const PGTT = PASID_OF[this.manners.kind];
    this.pasid(rid, pasid, { PGTT, DID: didOf(domain), ...second, ...first });
  }

  /** A function's context entry goes, or comes back. */
  private toggleContext(rid: number): void {
    const { absentContexts } = this;
    if (absentContexts.delete(rid)) this.context(rid, { DTE: 1 });
    else {
      absentContexts.add(rid);
      this.context(rid, { P: 0 });
    }
    this.pending.push(
      encodeContextCacheInvalidate({ G: G_DEVICE, SID: rid }),
      encodePasidCacheInvalidate({ G: PASID_CACHE_G_GLOBAL }),
      encodeIotlbInvalidate({ G: G_GLOBAL }),
    );
  }
}

/** Every other seed, where software does invalidate: strict mode says nothing about faults that are cached. */
const cachingMode = ({ seed, invalidates }: Manners): number => (invalidates ? seed & 1 : 0);
const didOf = (domain: number): number => 5 + domain;
