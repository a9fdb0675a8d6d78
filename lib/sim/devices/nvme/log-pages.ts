/** What Get Log Page returns. NVM Express 1.4, 5.14.1. */
import { ERROR_LOG_ENTRIES, FIRMWARE, WARNING_TEMPERATURE, writeText } from './identify';

export const LOG_PAGE = { ERRORS: 1, HEALTH: 2, FIRMWARE: 3 } as const;

const ERROR_ENTRY = 64;
const LOG_BYTES = 512;
/** Data units are thousands of 512 bytes, rounded up. */
const DATA_UNIT = 512_000;

export interface FailedCommand {
  readonly queue: number;
  /** 0xffff where it is no command's. */
  readonly command: number;
  /** As in the completion: status << 1. */
  readonly status: number;
  readonly namespace: number;
  readonly lba: bigint;
}

/** Error information (figure 193): the newest first. */
export class ErrorLog {
  #count = 0n;
  #entries: Uint8Array[] = [];

  get count(): bigint {
    return this.#count;
  }

  add(failed: FailedCommand): void {
    const entry = new Uint8Array(ERROR_ENTRY);
    const view = new DataView(entry.buffer);
    view.setBigUint64(0, ++this.#count, true);
    view.setUint16(8, failed.queue, true);
    view.setUint16(10, failed.command, true);
    view.setUint16(12, failed.status, true);
    view.setUint16(14, 0xffff, true); // no parameter is named as the wrong one
    view.setBigUint64(16, failed.lba, true);
    view.setUint32(24, failed.namespace, true);
    this.#entries = [entry, ...this.#entries].slice(0, ERROR_LOG_ENTRIES + 1);
  }

  page(): Uint8Array {
    const bytes = new Uint8Array((ERROR_LOG_ENTRIES + 1) * ERROR_ENTRY);
    this.#entries.forEach((entry, i) => bytes.set(entry, i * ERROR_ENTRY));
    return bytes;
  }
}

/** SMART / health information (figure 194). */
export class Health {
  /** Kelvin: the composite temperature. */
  temperature = 310;
  bytesRead = 0;
  bytesWritten = 0;
  reads = 0n;
  writes = 0n;
  mediaErrors = 0n;
  powerCycles = 1n;
  unsafeShutdowns = 0n;

  /** Critical warning (byte 0): bit 1, a temperature beyond its threshold. */
  criticalWarning({ over, under }: { over: number; under: number }): number {
    return this.temperature >= over || this.temperature <= under ? 1 << 1 : 0;
  }

  page(thresholds: { over: number; under: number }, errors: bigint): Uint8Array {
    const bytes = new Uint8Array(LOG_BYTES);
    const view = new DataView(bytes.buffer);
    bytes[0] = this.criticalWarning(thresholds);
    view.setUint16(1, this.temperature, true);
    bytes[3] = 100; // available spare, percent
    bytes[4] = 10; // its threshold
    const counters: [number, bigint][] = [
      [32, BigInt(Math.ceil(this.bytesRead / DATA_UNIT))],
      [48, BigInt(Math.ceil(this.bytesWritten / DATA_UNIT))],
      [64, this.reads],
      [80, this.writes],
      [112, this.powerCycles],
      [144, this.unsafeShutdowns],
      [160, this.mediaErrors],
      [176, errors],
    ];
    for (const [at, value] of counters) view.setBigUint64(at, value, true);
    if (this.temperature >= WARNING_TEMPERATURE) view.setUint32(192, 1, true); // minutes above it
    return bytes;
  }
}

/** Firmware slot information (figure 195): slot 1 is active. */
export function firmwarePage(): Uint8Array {
  const bytes = new Uint8Array(LOG_BYTES);
  bytes[0] = 1;
  writeText(bytes, 8, 8, FIRMWARE);
  return bytes;
}
