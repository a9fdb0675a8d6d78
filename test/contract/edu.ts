/** QEMU's educational device (docs/specs/edu.rst of QEMU): registers in BAR 0, and a DMA engine. */
import type { Device, Region } from '../../lib';
import { until } from './support';

export const IDENTIFICATION = 0x00;
export const LIVENESS = 0x04;
export const FACTORIAL = 0x08;
export const STATUS = 0x20;
export const INTERRUPT_STATUS = 0x24;
export const INTERRUPT_RAISE = 0x60;
export const INTERRUPT_ACKNOWLEDGE = 0x64;
const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;
const DMA_START = 1n;
const DMA_TO_MEMORY = 2n;
/** Where the device's own buffer of 4096 bytes is, for its DMA engine. */
export const BUFFER = 0x40000n;

export class Edu {
  readonly bar: Region;

  constructor(device: Device) {
    device.enableBusMaster();
    this.bar = device.region('bar0');
  }

  /** Copies memory at an IOVA into the device's buffer. */
  fetch(iova: bigint, length: number, at = 0): Promise<void> {
    return this.#dma(iova, BUFFER + BigInt(at), length, 0n);
  }

  /** Copies the device's buffer to memory at an IOVA. */
  store(iova: bigint, length: number, at = 0): Promise<void> {
    return this.#dma(BUFFER + BigInt(at), iova, length, DMA_TO_MEMORY);
  }

  async #dma(source: bigint, destination: bigint, length: number, direction: bigint): Promise<void> {
    this.bar.write64(DMA_SOURCE, source);
    this.bar.write64(DMA_DESTINATION, destination);
    this.bar.write64(DMA_COUNT, length);
    this.bar.write64(DMA_COMMAND, DMA_START | direction);
    await until(() => (this.bar.read64(DMA_COMMAND) & DMA_START) === 0n);
  }
}
