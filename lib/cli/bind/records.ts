/**
 * What `iommufd bind` remembers of each device, for `iommufd unbind`: a file each in /run/iommufd, which is gone after a
 * boot, as the binding itself is.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

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
}

export const RECORDS = '/run/iommufd';

export class Records {
  constructor(readonly folder: string = RECORDS) {}

  /** Replaces what was remembered. Throws Node's errors. */
  save(record: DeviceRecord): void {
    mkdirSync(this.folder, { recursive: true });
    const path = this.#path(record.bdf);
    // In one step: a record is whole, or it is not there.
    writeFileSync(`${path}.new`, `${JSON.stringify(record)}\n`);
    renameSync(`${path}.new`, path);
  }

  /** What is remembered of this device; undefined where nothing is, or it is another device's. */
  find(device: Pick<DeviceRecord, 'bdf' | 'vendorId' | 'deviceId'>): DeviceRecord | undefined {
    let record: unknown;
    try {
      record = JSON.parse(readFileSync(this.#path(device.bdf), 'utf8'));
    } catch {
      return undefined;
    }
    if (!isRecord(record) || record.bdf !== device.bdf) return undefined;
    return record.vendorId === device.vendorId && record.deviceId === device.deviceId ? record : undefined;
  }

  forget(bdf: string): void {
    rmSync(this.#path(bdf), { force: true });
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
    isName(record.driverOverride)
  );
}
