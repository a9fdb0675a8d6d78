/**
 * What `iommufd bind` remembers of each device, for `iommufd unbind`: a file each in /run/iommufd, which is gone after a
 * boot, as the binding itself is.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { lock } from './lock';

/** A device as it was before. */
export interface DeviceRecord {
  readonly bdf: string;
  /** Which device it is: another may be at that address by now. */
  readonly vendorId: number;
  readonly deviceId: number;
  /** null: it had none. */
  readonly driver: string | null;
  /** What driver_override said; null: nothing. */
  readonly driverOverride: string | null;
  /** Which boot of Linux it was, as /proc/sys/kernel/random/boot_id has it; null: Linux does not say. */
  readonly boot: string | null;
}

/** Tells devices apart. */
export type DeviceIdentity = Pick<DeviceRecord, 'bdf' | 'vendorId' | 'deviceId' | 'boot'>;

export const RECORDS = '/run/iommufd';

export class Records {
  /** `patience`: milliseconds to wait for another process that has the lock. */
  constructor(
    readonly folder: string = RECORDS,
    readonly patience?: number,
  ) {}

  /** For one process at a time; what it returns lets go. Throws as `lock` does. */
  lock(): () => void {
    return lock(this.folder, this.patience);
  }

  /** Replaces what was remembered. Throws Node's errors. */
  save(record: DeviceRecord): void {
    mkdirSync(this.folder, { recursive: true });
    const path = this.#path(record.bdf);
    // In one step: a record is whole, or it is not there.
    writeFileSync(`${path}.new`, `${JSON.stringify(record)}\n`);
    renameSync(`${path}.new`, path);
  }

  /** What is remembered of this device; undefined where nothing is, or it is another device's or boot's. */
  find(device: DeviceIdentity): DeviceRecord | undefined {
    let record: unknown;
    try {
      record = JSON.parse(readFileSync(this.#path(device.bdf), 'utf8'));
    } catch {
      return undefined;
    }
    if (!isRecord(record)) return undefined;
    const names = ['bdf', 'vendorId', 'deviceId', 'boot'] as const;
    return names.every((name) => record[name] === device[name]) ? record : undefined;
  }

  /** Where that is not allowed, the record stays: it counts for nothing while the device has a driver of its own. */
  forget(bdf: string): void {
    try {
      rmSync(this.#path(bdf), { force: true });
    } catch {
      // Why it stays does not matter to the device, which is back.
    }
  }

  #path(bdf: string): string {
    return join(this.folder, `${bdf}.json`);
  }
}

function isRecord(value: unknown): value is DeviceRecord {
  if (typeof value !== 'object' || value === null) return false;
  const record = value as Record<string, unknown>;
  const isName = (name: unknown) => name === null || (typeof name === 'string' && /^[\w.-]+$/.test(name));
  return (
    typeof record.bdf === 'string' &&
    typeof record.vendorId === 'number' &&
    typeof record.deviceId === 'number' &&
    isName(record.driver) &&
    isName(record.driverOverride) &&
    isName(record.boot)
  );
}
