// Interrupt messages of an edu through QEMU's unit and through ours, over random entries: where each goes, or its fault record.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PhysicalMemory } from '../../lib/sim/memory';
import * as vtd from '../../lib/sim/vtd';
import { Random } from '../conformance/random';
import { randomTrial, RID, SIZE, type Trial } from './interrupt-trial';
import type { UnitFactory } from './ours';
import { Qtest } from './qtest';
import { Quirks, type QuirkName } from './quirks';

const UNIT = 0xfed9_0000;
const EDU = 0xe000_0000;
const EDU_RAISE = EDU + 0x60;
const EDU_ACKNOWLEDGE = EDU + 0x64;
/** edu's MSI capability in configuration space. */
const MSI = 0x40;
const MSI_ENABLE = 0x1_0000;
const TABLE = 0x10_0000;
const RAM_BYTES = 2 ** 28;
/** Messages that are on their way at once. */
const BATCH = 1000;
/** Commands of one message, and where among them the record is read. */
const COMMANDS = 14;
const RECORD_AT = 12;
const SHOWN = 5;
/** Level of an edge-triggered message means nothing (Intel SDM volume 3, section 12.11.2); QEMU sets it. */
const LEVEL = 1 << 14;
const TRIGGER = 1 << 15;

/** QEMU's deviations, as changes of a trial after which our unit does what QEMU does. */
const DEVIATIONS: readonly (readonly [QuirkName, (trial: Trial) => Trial])[] = [
  [
    'busRangeSwapped',
    (trial) => (svtOf(trial) === vtd.SVT_BUS ? withEntry(trial, identity, swapBuses) : trial),
  ],
  ['interruptModeIgnored', (trial) => withEntry(trial, (low) => low & ~MODE, identity)],
  [
    'narrowDestination',
    (trial) => (trial.extended ? trial : withEntry(trial, (low) => low & ~WIDE_DESTINATION, identity)),
  ],
  ['indexWraps', (trial) => (trial.low === LAST_HANDLE ? { ...trial, ...messageFor(trial.index) } : trial)],
  [
    'compatibilityPasses',
    (trial) =>
      trial.low & vtd.MESSAGE_REMAPPABLE ? trial : { ...trial, compatibility: true, extended: false },
  ],
];

/** A message whose handle and subhandle do not fit 16 bits together; it has a subhandle above 0. */
const LAST_HANDLE = vtd.remappableAddress(0xffff);
const messageFor = (index: number) => ({ low: vtd.remappableAddress(index), data: 0 });

const MODE = 1n << 15n;
const WIDE_DESTINATION = 0xffff_00ff_0000_0000n;

const identity = (word: bigint) => word;
const svtOf = ({ entry }: Trial) => Number((entry[1] >> 18n) & 3n);
const swapBuses = (high: bigint) => (high & ~0xffffn) | ((high >> 8n) & 0xffn) | ((high & 0xffn) << 8n);

function withEntry(trial: Trial, low: (word: bigint) => bigint, high: (word: bigint) => bigint): Trial {
  return { ...trial, entry: [low(trial.entry[0]), high(trial.entry[1])] };
}

export interface InterruptRun {
  /** QEMU's program. */
  readonly program: string;
  readonly seed: number;
  readonly accesses: number;
  readonly without: readonly QuirkName[];
  /** The unit that is compared, where it is another than ours. */
  readonly create?: UnitFactory;
}

export interface InterruptResult {
  /** Messages. */
  readonly accesses: number;
  readonly faults: number;
  readonly mismatches: number;
  readonly quirksUsed: readonly QuirkName[];
  /** The first ones. */
  readonly dumps: readonly string[];
}

/** A message: address and data; or a fault record, both halves. Neither: blocked without a record. */
interface Outcome {
  readonly message: readonly [bigint, number] | undefined;
  readonly record: readonly [bigint, bigint];
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

const irtaOf = ({ extended }: Trial) => TABLE | SIZE | (extended ? vtd.IRTA_EIME : 0);
const commandOf = ({ compatibility }: Trial) => vtd.GCMD_IRE | (compatibility ? vtd.GCMD_CFI : 0);

class Ours {
  readonly #memory = new PhysicalMemory(RAM_BYTES);
  readonly #sent: [number, number, number][] = [];
  readonly #unit: vtd.VtdUnit;

  constructor(
    capabilities: Partial<vtd.VtdCapabilities>,
    create: UnitFactory = (options) => new vtd.VtdUnit(options),
  ) {
    this.#unit = create({
      memory: this.#memory,
      capabilities,
      interrupt: (...message) => this.#sent.push(message),
      endpoint: () => undefined,
    });
  }

  run(trial: Trial): Outcome {
    const unit = this.#unit;
    const frcd = unit.capabilities.FRO * 16;
    trial.entry.forEach((word, i) =>
      this.#memory.write64(
        TABLE + 16 * trial.index + 8 * i,
        Number(word >> 32n),
        Number(word & 0xffff_ffffn),
      ),
    );
    unit.write64(vtd.IRTA_REG, 0, irtaOf(trial));
    unit.write32(vtd.GCMD_REG, commandOf(trial) | vtd.GCMD_SIRTP);
    unit.write32(frcd + 12, vtd.FRCD_F);
    unit.interruptRequest(RID, trial.low, trial.data);
    const [low, high, ...upper] = [0, 4, 8, 12].map((offset) => BigInt(unit.read32(frcd + offset)));
    const sent = this.#sent.pop();
    return {
      message: sent && [(BigInt(sent[0]) << 32n) | BigInt(sent[1]), sent[2]],
      record: pending(low | (high << 32n), upper[0] | (upper[1] << 32n)),
    };
  }
}

/** The record, if it holds one. */
const pending = (low: bigint, high: bigint) => (high >> 63n ? ([low, high] as const) : ([0n, 0n] as const));

class Qemu {
  capabilities!: Partial<vtd.VtdCapabilities>;
  #frcd = 0;
  #seen = 0;

  private constructor(
    private readonly qtest: Qtest,
    private readonly folder: string,
  ) {}

  static async start(program: string): Promise<Qemu> {
    const folder = mkdtempSync(join(tmpdir(), 'iommufd-oracle-'));
    const qtest = await Qtest.start(program, [
      ...['-machine', 'q35,accel=qtest', '-m', '256M', '-nodefaults', '-display', 'none'],
      ...['-device', 'intel-iommu,intremap=on,eim=on', '-device', 'edu,addr=4'],
      // Nothing else tells where a message went.
      ...['-d', 'trace:vtd_ir_remap_msi,trace:vtd_reg_ir_root', '-D', join(folder, 'log')],
    ]);
    const qemu = new Qemu(qtest, folder);
    await qemu.#prepare();
    return qemu;
  }

  close(): void {
    this.qtest.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async run(trials: readonly Trial[]): Promise<Outcome[]> {
    for (const trial of trials) this.#perform(trial);
    const answers = await this.qtest.flush();
    const messages = this.#messages();
    const outcomes = trials.map((_, i): Outcome => {
      const at = i * COMMANDS + RECORD_AT;
      return { message: undefined, record: pending(BigInt(answers[at]), BigInt(answers[at + 1])) };
    });
    return outcomes.map((outcome, i) => ({ ...outcome, message: messages[i] }));
  }

  async #prepare(): Promise<void> {
    const { qtest } = this;
    qtest.command(`readq ${hex(UNIT + vtd.CAP_REG_OFFSET)}`);
    qtest.command(`readq ${hex(UNIT + vtd.ECAP_REG_OFFSET)}`);
    const [cap, ecap] = (await qtest.flush()).map((answer) => [
      Number(BigInt(answer) & 0xffff_ffffn) | 0,
      Number(BigInt(answer) >> 32n) | 0,
    ]);
    this.capabilities = { ...vtd.decodeCap(cap), ...vtd.decodeEcap(ecap) };
    this.#frcd = UNIT + vtd.decodeCap(cap).FRO * 16;
    this.#configure(0x10, EDU);
    this.#configure(0x04, 6);
    this.#configure(MSI, MSI_ENABLE);
    await qtest.flush();
    this.#messages();
  }

  #configure(register: number, value: number): void {
    this.qtest.command(`outl 0xcf8 ${hex(0x8000_0000 + (RID << 8) + register)}`);
    this.qtest.command(`outl 0xcfc ${hex(value)}`);
  }

  /** COMMANDS commands. */
  #perform(trial: Trial): void {
    const { qtest } = this;
    trial.entry.forEach((word, i) =>
      qtest.command(`writeq ${hex(TABLE + 16 * trial.index + 8 * i)} ${hex(word)}`),
    );
    qtest.command(`writeq ${hex(UNIT + vtd.IRTA_REG)} ${hex(irtaOf(trial))}`);
    qtest.command(`writel ${hex(UNIT + vtd.GCMD_REG)} ${hex(commandOf(trial) | vtd.GCMD_SIRTP)}`);
    qtest.command(`writel ${hex(this.#frcd + 12)} 0x80000000`);
    this.#configure(MSI + 4, trial.low);
    this.#configure(MSI + 12, trial.data);
    qtest.command(`writel ${hex(UNIT + vtd.FSTS_REG)} 0xff`);
    qtest.command(`writel ${hex(EDU_RAISE)} 1`);
    qtest.command(`writel ${hex(EDU_ACKNOWLEDGE)} 1`);
    qtest.command(`readq ${hex(this.#frcd)}`);
    qtest.command(`readq ${hex(this.#frcd + 8)}`);
  }

  /** For each time that the table was set, what has been sent on since: address and data. */
  #messages(): ([bigint, number] | undefined)[] {
    const text = readFileSync(join(this.folder, 'log'), 'latin1');
    const fresh = text.slice(this.#seen);
    this.#seen = text.length;
    return fresh
      .split(/^vtd_reg_ir_root .*\n/m)
      .slice(1)
      .map((part) => {
        const match = /-> \(addr (\w+), data (\w+)\)/.exec(part);
        return match ? [BigInt(match[1]), Number(match[2])] : undefined;
      });
  }
}

function text({ message, record }: Outcome): string {
  if (message)
    return `message ${hex(message[0])} ${hex(message[1] & TRIGGER ? message[1] : message[1] & ~LEVEL)}`;
  return record[1] === 0n ? 'nothing' : `record ${hex(record[1])} ${hex(record[0])}`;
}

/** What QEMU must do: what our unit does, with the deviations allowed for. */
function expectation(ours: Ours, trial: Trial, quirks: Quirks): string {
  let result = text(ours.run(trial));
  for (const [name, change] of DEVIATIONS) {
    const changed = change(trial);
    if (!quirks.allows(name) || changed === trial) continue;
    trial = changed;
    const after = text(ours.run(trial));
    if (after !== result) quirks.use(name);
    result = after;
  }
  return result;
}

/** Sends messages through both. */
export async function runInterrupts(run: InterruptRun): Promise<InterruptResult> {
  const { program, seed, accesses, without } = run;
  const quirks = new Quirks(without);
  const qemu = await Qemu.start(program);
  try {
    // QEMU caches no entries: ours drops them whenever the table is set.
    const ours = new Ours({ ...qemu.capabilities, ESIRTPS: 1 }, run.create);
    let faults = 0;
    const different: string[] = [];
    for (let done = 0; done < accesses; done += BATCH) {
      const count = Math.min(BATCH, accesses - done);
      const trials = Array.from({ length: count }, (_, i) => randomTrial(new Random(seed, done + i)));
      const theirs = (await qemu.run(trials)).map(text);
      for (const [i, trial] of trials.entries()) {
        if (!theirs[i].startsWith('message')) faults++;
        const mine = expectation(ours, trial, quirks);
        if (mine !== theirs[i]) different.push(dump(trial, mine, theirs[i]));
      }
    }
    const quirksUsed = [...quirks.used].sort();
    return { accesses, faults, mismatches: different.length, quirksUsed, dumps: different.slice(0, SHOWN) };
  } finally {
    qemu.close();
  }
}

function dump(trial: Trial, mine: string, theirs: string): string {
  const { index, entry, compatibility, extended, low, data } = trial;
  return (
    `entry ${index} ${hex(entry[1])} ${hex(entry[0])}, CFI ${Number(compatibility)}, EIME ${Number(extended)}, ` +
    `message ${hex(low)} ${hex(data)}:\n  QEMU: ${theirs}\n  ours: ${mine}`
  );
}
