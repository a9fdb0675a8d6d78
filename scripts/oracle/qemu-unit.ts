// QEMU's unit, put through a scene: a machine with an intel-iommu and an edu, no guest.
import { decodeCap, decodeEcap, encodeInvalidationWait, type VtdCapabilities } from '../../lib/sim/vtd';
import * as vtd from '../../lib/sim/vtd/registers';
import type { Expectation } from './ours';
import type { FaultRecord } from './record';
import { Qtest } from './qtest';
import * as at from './scene';

const UNIT = 0xfed9_0000;
const EDU = 0xe000_0000;
// Registers of edu's DMA engine, and its buffer's address.
const EDU_SOURCE = EDU + 0x80;
const EDU_DESTINATION = EDU + 0x88;
const EDU_COUNT = EDU + 0x90;
const EDU_COMMAND = EDU + 0x98;
const EDU_BUFFER = 0x40000;
const EDU_RUN = 1;
const EDU_TO_MEMORY = 2;
/** Virtual time until a transfer is over. */
const EDU_NANOSECONDS = 100_000_000;

const IOMMU: Record<at.Mode, string> = {
  legacy: 'intel-iommu',
  'second-stage': 'intel-iommu,scalable-mode=on',
  'first-stage': 'intel-iommu,scalable-mode=on,fsts=on',
};

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** What a step has left. */
export interface Observation {
  readonly record: FaultRecord;
  readonly status: number;
  readonly stored: ReadonlyMap<number, bigint>;
  readonly head: number;
}

export interface SceneObservation {
  readonly steps: readonly Observation[];
  /** What is in edu's buffer at the end. */
  readonly buffer: bigint;
  readonly pages: ReadonlyMap<number, Buffer>;
}

export class QemuUnit {
  #tail = 0;
  #frcd = 0;
  #iotlb = 0;
  capabilities!: VtdCapabilities;

  private constructor(private readonly qtest: Qtest) {}

  static async start(program: string, mode: at.Mode): Promise<QemuUnit> {
    const qtest = await Qtest.start(program, [
      ...['-machine', 'q35,accel=qtest', '-m', '256M', '-nodefaults', '-display', 'none'],
      ...['-device', IOMMU[mode], '-device', 'edu,dma_mask=0xffffffffffffffff,addr=4'],
    ]);
    const unit = new QemuUnit(qtest);
    try {
      await unit.#prepare();
    } catch (error) {
      qtest.close();
      throw error;
    }
    return unit;
  }

  close(): void {
    this.qtest.close();
  }

  async #prepare(): Promise<void> {
    const { qtest } = this;
    qtest.command(`readq ${hex(UNIT + vtd.CAP_REG_OFFSET)}`);
    qtest.command(`readq ${hex(UNIT + vtd.ECAP_REG_OFFSET)}`);
    qtest.command(`readl ${hex(UNIT + vtd.VER_REG)}`);
    const [cap, ecap, version] = (await qtest.flush()).map((answer) => [
      Number(BigInt(answer) & 0xffff_ffffn) | 0,
      Number(BigInt(answer) >> 32n) | 0,
    ]);
    const decoded = { ...decodeCap(cap!), ...decodeEcap(ecap!) };
    // QEMU's host and guest address widths are one and the same.
    this.capabilities = { ...decoded, VER: version![0]!, HAW: decoded.MGAW + 1 };
    this.#frcd = UNIT + decoded.FRO * 16;
    this.#iotlb = UNIT + decoded.IRO * 16;
    const configure = (register: number, value: number): void => {
      qtest.command(`outl 0xcf8 ${hex(0x8000_0000 + (at.RID << 8) + register)}`);
      qtest.command(`outl 0xcfc ${hex(value)}`);
    };
    configure(0x10, EDU);
    configure(0x04, 6);
    qtest.command(`writeq ${hex(EDU_COUNT)} ${hex(at.ACCESS_BYTES)}`);
    for (const [address, value] of at.DATA_WORDS) this.#writeWord(address, value);
    await qtest.flush();
  }

  /** Everything at once; `expected` says which words are read back. Memory is left as it was. */
  async run(
    scene: at.Scene,
    expected: readonly Expectation[],
    pages: Iterable<number>,
  ): Promise<SceneObservation> {
    const { qtest } = this;
    this.#load(scene);
    scene.steps.forEach((step, i) => this.#perform(scene, step, expected[i]!));
    this.#takeBuffer(scene);
    const addresses = [...pages];
    for (const page of addresses) qtest.command(`b64read ${hex(page)} ${at.PAGE}`);
    this.#unload(scene, addresses);
    const answers = (await qtest.flush()).values();
    const next = (): string => answers.next().value ?? '';
    for (let i = 0; i < this.#loadCommands(scene); i++) next();
    const steps = scene.steps.map((step, i) => observe(step, expected[i]!, next));
    for (let i = 0; i < 5; i++) next();
    const buffer = BigInt(next());
    for (let i = 0; i < 4; i++) next();
    const contents = addresses.map((page) => [page, Buffer.from(next(), 'base64')] as const);
    return { steps, buffer, pages: new Map(contents) };
  }

  #writeWord(address: number, value: bigint): void {
    this.qtest.command(`writeq ${hex(address)} ${hex(value)}`);
  }

  #loadCommands(scene: at.Scene): number {
    return scene.words.size + 7;
  }

  #load(scene: at.Scene): void {
    for (const [address, value] of scene.words) this.#writeWord(address, value);
    const wide = scene.mode === 'legacy' ? 0 : vtd.IQA_DW;
    this.#tail = 0;
    this.#command(vtd.GCMD_TE >>> 0);
    this.#clearErrors();
    this.qtest.command(`writel ${hex(UNIT + vtd.IQT_REG)} 0`);
    this.#writeWord(UNIT + vtd.IQA_REG, BigInt(at.QUEUE | wide));
    this.#writeWord(UNIT + vtd.RTADDR_REG, BigInt(scene.root));
    this.#command(at.dropCommand(scene));
  }

  /** What a scene with a difference may have left. */
  #clearErrors(): void {
    this.qtest.command(`writel ${hex(this.#frcd + 12)} 0x80000000`);
    this.qtest.command(`writel ${hex(UNIT + vtd.FSTS_REG)} 0xff`);
  }

  #command(command: number): void {
    this.qtest.command(`writel ${hex(UNIT + vtd.GCMD_REG)} ${hex(command)}`);
  }

  #perform(scene: at.Scene, step: at.Step, expected: Expectation): void {
    const { qtest } = this;
    switch (step.kind) {
      case 'access':
        return this.#access(step, expected);
      case 'drop':
        return this.#command(at.dropCommand(scene));
      case 'poke':
        return this.#writeWord(step.at, step.value);
      case 'invalidate':
        this.#submit(step.words);
        qtest.command(`readl ${hex(UNIT + vtd.IQH_REG)}`);
        qtest.command(`readl ${hex(UNIT + vtd.FSTS_REG)}`);
        return;
      case 'command': {
        const high = BigInt((step.high | vtd.IOTLB_IVT_HIGH) >>> 0);
        this.#writeWord(this.#iotlb + vtd.IVA_REG, step.address);
        this.#writeWord(this.#iotlb + vtd.IOTLB_REG, high << 32n);
      }
    }
  }

  #submit(words: readonly number[]): void {
    for (let i = 0; i < words.length; i += 2) {
      const value = BigInt(words[i]! >>> 0) | (BigInt(words[i + 1]! >>> 0) << 32n);
      this.#writeWord(at.QUEUE + this.#tail + 4 * i, value);
    }
    this.#tail = (this.#tail + 4 * words.length) % at.PAGE;
    this.qtest.command(`writel ${hex(UNIT + vtd.IQT_REG)} ${hex(this.#tail)}`);
  }

  /** Four commands. */
  #transfer(address: bigint, write: boolean): void {
    this.#writeWord(EDU_SOURCE, write ? BigInt(EDU_BUFFER) : address);
    this.#writeWord(EDU_DESTINATION, write ? address : BigInt(EDU_BUFFER));
    this.#writeWord(EDU_COMMAND, BigInt(EDU_RUN | (write ? EDU_TO_MEMORY : 0)));
    this.qtest.command(`clock_step ${EDU_NANOSECONDS}`);
  }

  /** Ten commands: what is in the buffer, through no translation, and zeros for the next scene. */
  #takeBuffer({ queue }: at.Scene): void {
    this.#command(queue ? vtd.GCMD_QIE : 0);
    this.#transfer(BigInt(at.BUFFER_COPY), true);
    this.qtest.command(`readq ${hex(at.BUFFER_COPY)}`);
    this.#transfer(BigInt(at.ZERO), false);
  }

  #access({ address, write }: at.Access, { stored }: Expectation): void {
    const { qtest } = this;
    qtest.command(`writel ${hex(this.#frcd + 12)} 0x80000000`);
    this.#transfer(address, write);
    qtest.command(`readq ${hex(this.#frcd)}`);
    qtest.command(`readq ${hex(this.#frcd + 8)}`);
    qtest.command(`readl ${hex(UNIT + vtd.FSTS_REG)}`);
    for (const word of stored.keys()) qtest.command(`readq ${hex(word)}`);
  }

  #unload(scene: at.Scene, pages: readonly number[]): void {
    // QEMU turns the queue off only behind a wait descriptor, and wants one that does something.
    const wait = encodeInvalidationWait({ SW: 1, STATUS_ADDRESS: at.WAIT_STATUS });
    if (scene.queue) this.#submit([...wait].slice(0, scene.mode === 'legacy' ? 4 : 8));
    for (const page of pages) this.qtest.command(`memset ${hex(page)} ${at.PAGE} 0`);
    for (const [address, value] of at.DATA_WORDS) {
      if (pages.includes(at.pageOf(address))) this.#writeWord(address, value);
    }
  }
}

/** Takes a step's answers. */
function observe(step: at.Step, expected: Expectation, next: () => string): Observation {
  const { record, status, stored, head } = expected;
  const unseen: Observation = { record, status, stored, head };
  const skip = (count: number): void => {
    for (let i = 0; i < count; i++) next();
  };
  if (step.kind === 'access') {
    skip(5);
    const low = BigInt(next());
    const high = BigInt(next());
    const isPending = high >> 63n !== 0n;
    return {
      record: isPending ? { low, high } : { low: 0n, high: 0n },
      status: Number(next()),
      stored: new Map([...stored.keys()].map((word) => [word, BigInt(next())])),
      head,
    };
  }
  if (step.kind === 'invalidate') {
    skip(step.words.length / 2 + 1);
    return { ...unseen, head: Number(next()), status: Number(next()) };
  }
  skip(step.kind === 'command' ? 2 : 1);
  return unseen;
}
