/**
 * A function with several DMA engines ("channels") that can be handed out one by one: each has a page of registers, a
 * portal for ENQCMD, and a PASID of its own by default. Its registers are in channel-engine-registers.ts.
 *
 * What tells the channels' requests apart is the PASID alone: all leave with the function's requester ID.
 */
import { type PageRequest } from '../bus';
import { Channel, type Upstream } from './channel';
import * as reg from './channel-engine-registers';
import type { DmaEngine } from './dma-engine';
import { PASID_VALUE } from './dma-engine-registers';
import { PRG_INDICES } from './page-requests';
import { PciFunction } from './pci-function';

/** A page request group on its way, and whose it is. */
interface Group {
  readonly engine: DmaEngine;
  /** As the engine knows it. */
  readonly pasid: number;
  readonly prgIndex: number;
}

export class ChannelEngine extends PciFunction {
  readonly channels: readonly Channel[];
  /** By the group index that left the function: the engines each number their own. */
  readonly #groups = new Map<number, Group>();

  /** `channels`: 1 to 64, a power of two. */
  constructor({ channels = 8 }: { channels?: number } = {}) {
    if (![1, 2, 4, 8, 16, 32, 64].includes(channels))
      throw new RangeError(`no engine has ${channels} channels`);
    super({
      vendorId: reg.CHANNEL_ENGINE_VENDOR_ID,
      deviceId: reg.CHANNEL_ENGINE_DEVICE_ID,
      revisionId: 1,
      classCode: 0x088000,
      bars: [
        { bar: 0, size: channels * reg.CHANNEL_PAGE, width: 64, prefetchable: false },
        { bar: 2, size: channels * reg.CHANNEL_PAGE, width: 64, prefetchable: false },
        { bar: 4, size: 4096, width: 64, prefetchable: false },
      ],
      capabilities: [
        { kind: 'power-management', noSoftReset: true },
        { kind: 'express', type: 'root-complex-endpoint', functionLevelReset: true },
      ],
      extendedCapabilities: [
        { kind: 'ats', queueDepth: 32 },
        { kind: 'pri', capacity: 256 },
        { kind: 'pasid', width: 20, execute: true, privileged: true },
      ],
    });
    const upstream: Upstream = {
      read: (...request) => this.dmaRead(...request),
      write: (...request) => this.dmaWrite(...request),
      translate: (...request) => this.translate(...request),
      requestPage: (engine, request, pasid) => this.#requestPage(engine, request, pasid),
      schedule: (nanoseconds, event) => this.schedule(nanoseconds, event),
    };
    this.channels = Array.from({ length: channels }, () => new Channel(upstream));
  }

  override get portalBar(): number {
    return 2;
  }

  override enqueue(bar: number, offset: number, bytes: Uint8Array): boolean | undefined {
    if (bar !== this.portalBar || !this.config.memoryEnabled || bytes.length !== reg.COMMAND_BYTES)
      return undefined;
    return this.channels[Math.floor(offset / reg.CHANNEL_PAGE)]?.enqueue(bytes);
  }

  override invalidateTranslations(
    pasid: number,
    high: number,
    low: number,
    length: number,
    global: boolean,
  ): void {
    for (const { engines } of this.channels)
      for (const inner of engines) inner.invalidate(pasid, high, low, length, global);
  }

  protected override readRegister(bar: number, offset: number, width: number): number {
    if (bar === 0) return this.#channel(offset).front.engine.readBar(0, offset % reg.CHANNEL_PAGE, width);
    if (bar !== 4 || width !== 4) return 0;
    const channel = this.channels[Math.floor(offset / reg.CHANNEL_CONTROL_BYTES)];
    switch (channel ? offset % reg.CHANNEL_CONTROL_BYTES : -1) {
      case reg.channelControl.DEFAULT_PASID:
        return channel.defaultPasid;
      case reg.channelControl.WAITING:
        return channel.waiting;
      default:
        return 0;
    }
  }

  protected override writeRegister(bar: number, offset: number, width: number, value: number): void {
    if (bar === 0) {
      const { engine } = this.#channel(offset).front;
      engine.writeBar(0, offset % reg.CHANNEL_PAGE, width, value);
      return;
    }
    if (bar !== 4 || width !== 4) return;
    const channel = this.channels[Math.floor(offset / reg.CHANNEL_CONTROL_BYTES)];
    switch (channel ? offset % reg.CHANNEL_CONTROL_BYTES : -1) {
      case reg.channelControl.DEFAULT_PASID:
        channel.defaultPasid = value;
        this.#forget(channel);
        return;
      case reg.channelControl.ABORT_PASID:
        channel.abort(value & PASID_VALUE);
        return;
      case reg.channelControl.RESET:
        if (!(value & 1)) return;
        channel.reset();
        this.#forget(channel);
    }
  }

  protected override onReset(): void {
    this.#groups.clear();
    for (const channel of this.channels) channel.defaultPasid = 0;
  }

  protected override onPageGroupResponse(_pasid: number, prgIndex: number, code: number): void {
    const group = this.#groups.get(prgIndex);
    this.#groups.delete(prgIndex);
    group?.engine.pageGroupResponse(group.pasid, group.prgIndex, code);
  }

  #channel(offset: number): Channel {
    return this.channels[Math.floor(offset / reg.CHANNEL_PAGE)];
  }

  /** Answers to what a channel asked before its reset concern nobody. */
  #forget({ engines }: Channel): void {
    for (const [index, { engine }] of this.#groups)
      if (engines.some((inner) => inner.engine === engine)) this.#groups.delete(index);
  }

  /** The engines' page requests share the function's group indices. */
  #requestPage(engine: DmaEngine, request: PageRequest, pasid: number): boolean {
    const prgIndex = this.#groupOf(engine, request);
    if (prgIndex < 0) return false;
    const sent = this.requestPage({ ...request, pasid, prgIndex });
    if (!sent) {
      this.forgetGroup(prgIndex);
      this.#groups.delete(prgIndex);
    }
    return sent;
  }

  /** The index under which a group leaves: that of its earlier requests, or a free one; -1 if there is none. */
  #groupOf(engine: DmaEngine, { pasid, prgIndex }: PageRequest): number {
    for (const [known, group] of this.#groups)
      if (group.engine === engine && group.prgIndex === prgIndex && group.pasid === pasid) return known;
    for (let index = 0; index < PRG_INDICES; index++) {
      if (this.#groups.has(index) || !this.isGroupFree(index)) continue;
      this.#groups.set(index, { engine, pasid, prgIndex });
      return index;
    }
    return -1;
  }
}
