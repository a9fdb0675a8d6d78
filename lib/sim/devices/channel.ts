/** One channel of a channel engine: a DMA engine behind registers, and another behind a portal with a queue. */
import { ACCESS_TRANSLATED, NO_PASID, type DmaPort, type PageRequest } from '../bus';
import {
  channelCommand,
  COMPLETION_ERROR,
  COMPLETION_SUCCESS,
  DEFAULT_PASID_VALID,
  PORTAL_DEPTH,
} from './channel-engine-registers';
import { DmaEngine } from './dma-engine';
import * as reg from './dma-engine-registers';
import * as pci from './pci-registers';

const REG = reg.dmaEngine;
/** What a command may ask of the engine. Privileged mode is the processor's to say, and is not supported. */
const COMMAND_CONTROL =
  reg.CONTROL_OPERATION | reg.CONTROL_ATS | reg.CONTROL_PAGE_REQUESTS | reg.CONTROL_REQUEST_WRITE;

/** The way out of the function that contains the engines. */
export interface Upstream extends Omit<DmaPort, 'requestPage'> {
  /** `request` is the engine's own; it leaves with `pasid`. */
  requestPage(engine: DmaEngine, request: PageRequest, pasid: number): boolean;
}

/** A DMA engine within a function: its requests leave through that function, and with its requester ID. */
export class InnerEngine {
  readonly engine = new DmaEngine();
  /** What requests carry that name no PASID. */
  defaultPasid = NO_PASID;

  constructor(upstream: Upstream) {
    // A translated request carries no PASID, and no default either.
    const tag = (pasid: number, access: number) =>
      pasid === NO_PASID && !(access & ACCESS_TRANSLATED) ? this.defaultPasid : pasid;
    this.engine.connect(0, {
      read: (pasid, high, low, into, at, length, access) =>
        upstream.read(tag(pasid, access), high, low, into, at, length, access),
      write: (pasid, high, low, from, at, length, access) =>
        upstream.write(tag(pasid, access), high, low, from, at, length, access),
      translate: (pasid, high, low, access) => upstream.translate(tag(pasid, access), high, low, access),
      requestPage: (request) => upstream.requestPage(this.engine, request, tag(request.pasid, 0)),
      schedule: (nanoseconds, event) => upstream.schedule(nanoseconds, event),
    });
    this.#enable();
  }

  reset(): void {
    this.engine.reset();
    this.#enable();
  }

  read(offset: number): number {
    return this.engine.readBar(0, offset, 4);
  }

  write(offset: number, value: number): void {
    this.engine.writeBar(0, offset, 4, value);
  }

  get busy(): boolean {
    return (this.read(REG.STATUS) & reg.STATUS_BUSY) !== 0;
  }

  /** Ends the command if it is one with this PASID. */
  abort(pasid: number): void {
    const named = this.read(REG.PASID);
    const own = named >= reg.PASID_ENABLE ? named & reg.PASID_VALUE : this.defaultPasid;
    if (this.busy && own === pasid) this.write(REG.CONTROL, reg.CONTROL_ABORT);
  }

  /** What the cache holds under the default PASID it holds without one. */
  invalidate(pasid: number, high: number, low: number, length: number, global: boolean): void {
    this.engine.invalidateTranslations(pasid, high, low, length, global);
    if (pasid !== NO_PASID && pasid === this.defaultPasid)
      this.engine.invalidateTranslations(NO_PASID, high, low, length, global);
  }

  /** Everything is on: what may leave is for the function around it to say. */
  #enable(): void {
    const { config } = this.engine;
    const at = (id: number) => config.extendedCapability(id);
    config.write(pci.COMMAND, 2, pci.COMMAND_MEMORY_SPACE | pci.COMMAND_BUS_MASTER);
    const modes = pci.PASID_EXECUTE | pci.PASID_PRIVILEGED;
    config.write(at(pci.EXTENDED_CAPABILITY_PASID) + pci.PASID_CONTROL, 2, modes | pci.PASID_CONTROL_ENABLE);
    const pri = at(pci.EXTENDED_CAPABILITY_PRI);
    config.write(pri + pci.PRI_ALLOCATION, 4, config.read(pri + pci.PRI_CAPACITY, 4));
    config.write(pri + pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
    config.write(at(pci.EXTENDED_CAPABILITY_ATS) + pci.ATS_CONTROL, 2, pci.ATS_CONTROL_ENABLE);
  }
}

export class Channel {
  /** Behind the registers. */
  readonly front: InnerEngine;
  /** Behind the portal. */
  readonly worker: InnerEngine;
  /** Commands from the portal; the first of them runs. */
  #queue: DataView[] = [];
  readonly #record = new DataView(new ArrayBuffer(4));

  constructor(readonly upstream: Upstream) {
    this.front = new InnerEngine(upstream);
    this.worker = new InnerEngine(upstream);
    this.worker.engine.onEnd = () => this.#ended();
  }

  get engines(): readonly InnerEngine[] {
    return [this.front, this.worker];
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** The DEFAULT_PASID register. */
  get defaultPasid(): number {
    const { defaultPasid } = this.front;
    return defaultPasid === NO_PASID ? 0 : (defaultPasid | DEFAULT_PASID_VALID) >>> 0;
  }

  set defaultPasid(value: number) {
    // Whatever it holds or does belongs to the old one.
    this.reset();
    for (const inner of this.engines)
      inner.defaultPasid = value >= DEFAULT_PASID_VALID ? value & reg.PASID_VALUE : NO_PASID;
  }

  reset(): void {
    this.#queue = [];
    for (const inner of this.engines) inner.reset();
  }

  abort(pasid: number): void {
    const [running, ...waiting] = this.#queue;
    this.#queue = waiting.filter((command) => pasidOf(command) !== pasid);
    if (running) this.#queue.unshift(running);
    for (const inner of this.engines) inner.abort(pasid);
  }

  /** A deferrable write to the portal. False: the queue is full, try again. */
  enqueue(bytes: Uint8Array): boolean {
    if (this.#queue.length >= PORTAL_DEPTH) return false;
    this.#queue.push(new DataView(Uint8Array.from(bytes).buffer));
    if (this.#queue.length === 1) this.#start();
    return true;
  }

  #start(): void {
    const [command] = this.#queue;
    if (!command) return;
    const { worker } = this;
    const word = (offset: number) => command.getUint32(offset, true);
    for (const [register, offset] of [
      [REG.SOURCE, channelCommand.SOURCE],
      [REG.SOURCE + 4, channelCommand.SOURCE + 4],
      [REG.DESTINATION, channelCommand.DESTINATION],
      [REG.DESTINATION + 4, channelCommand.DESTINATION + 4],
      [REG.LENGTH, channelCommand.LENGTH],
      [REG.PATTERN, channelCommand.PATTERN],
    ])
      worker.write(register, word(offset));
    worker.write(REG.PASID, (reg.PASID_ENABLE | pasidOf(command)) >>> 0);
    worker.write(REG.CONTROL, (word(channelCommand.CONTROL) & COMMAND_CONTROL) | reg.CONTROL_START);
  }

  /** The command that ran has ended: says so in memory, with the command's own PASID, and goes on. */
  #ended(): void {
    const command = this.#queue.shift();
    if (!command) return;
    const error = (this.worker.read(REG.STATUS) >>> reg.STATUS_ERROR_SHIFT) & 0xff;
    const low = command.getUint32(channelCommand.COMPLETION, true);
    const high = command.getUint32(channelCommand.COMPLETION + 4, true);
    if ((low || high) && error !== reg.ERROR_ABORTED) {
      this.#record.setUint32(0, error ? COMPLETION_ERROR + error : COMPLETION_SUCCESS, true);
      this.upstream.write(pasidOf(command), high, low, new Uint8Array(this.#record.buffer), 0, 4, 1);
    }
    this.#start();
  }
}

function pasidOf(command: DataView): number {
  return command.getUint32(channelCommand.PASID, true) & reg.PASID_VALUE;
}
