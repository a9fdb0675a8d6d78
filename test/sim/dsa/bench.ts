/** A simulated accelerator by itself, driven by registers and raw descriptors; time passes when a test says so. */
import { type Device, type FaultQueue, Iommu } from '../../../lib';
import { Dsa, Machine } from '../../../lib/sim';
import { FLAG } from '../../../lib/sim/devices/dsa/descriptor';
import * as reg from '../../../lib/sim/devices/dsa/registers';

export const BDF = '0000:00:06.0';
export const PASID = 6;
/** Where nothing is mapped. */
export const HOLE = 0x5000_0000n;
export const { COMMAND } = reg;

const opened: Iommu[] = [];
export function closeAll(): void {
  for (const iommu of opened.splice(0)) iommu.close();
}

/** What tests say of a descriptor; the rest is zero. */
export interface Sketch {
  readonly opcode: number;
  readonly flags?: number;
  readonly record?: bigint;
  readonly source?: bigint;
  readonly destination?: bigint;
  readonly size?: number;
  readonly interrupt?: number;
  readonly pasid?: number;
  readonly privileged?: boolean;
  /** Bytes from 40 on. */
  readonly more?: Uint8Array;
  /** One byte that is not zero. */
  readonly dirty?: number;
}

export function descriptor(sketch: Sketch): Uint8Array {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ((sketch.pasid ?? 0) | (sketch.privileged ? 0x8000_0000 : 0)) >>> 0, true);
  const valid = sketch.record === undefined ? 0 : FLAG.RECORD_ADDRESS_VALID;
  view.setUint32(4, ((sketch.opcode << 24) | valid | (sketch.flags ?? 0)) >>> 0, true);
  view.setBigUint64(8, sketch.record ?? 0n, true);
  view.setBigUint64(16, sketch.source ?? 0n, true);
  view.setBigUint64(24, sketch.destination ?? 0n, true);
  view.setUint32(32, sketch.size ?? 0, true);
  view.setUint16(36, sketch.interrupt ?? 0, true);
  if (sketch.more) bytes.set(sketch.more, 40);
  if (sketch.dirty !== undefined) bytes[sketch.dirty] |= 1;
  return bytes;
}

export function bytesOf(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

export class Bench {
  readonly device: Device;
  readonly dsa = new Dsa();
  readonly machine = new Machine({ manual: true, devices: { [BDF]: this.dsa } });
  readonly iommu = Iommu.open({ backend: this.machine });
  readonly faults: FaultQueue = this.iommu.createFaultQueue();
  readonly space = this.iommu.createAddressSpace({ pasid: true, faults: this.faults });
  readonly pool = this.space.createPool();
  readonly registers;
  readonly permissions;
  #records = 0;
  readonly #memory;

  constructor() {
    opened.push(this.iommu);
    this.device = this.iommu.bind(BDF, { cookie: 1n });
    this.device.attach(this.space);
    this.device.attach(this.space, { pasid: PASID });
    this.device.enableBusMaster();
    this.registers = this.device.region('bar0').registers(reg.DSA_REGISTERS);
    this.permissions = this.device.region('bar0').registers(reg.VECTOR_PERMISSION, reg.PERMISSION_TABLE);
    this.#memory = this.pool.allocate(4096);
  }

  group(index: number) {
    return this.device.region('bar0').registers(reg.GROUP_CONFIG, reg.GROUP_TABLE + index * reg.GROUP_BYTES);
  }

  queue(index: number) {
    return this.device
      .region('bar0')
      .registers(reg.WORK_QUEUE_CONFIG, reg.WORK_QUEUE_TABLE + index * reg.WORK_QUEUE_BYTES);
  }

  /** Gives a command and lets time pass; its error. */
  command(command: number, operand = 0): number {
    this.registers.CMD.write({ COMMAND: command, OPERAND: operand });
    this.machine.idle();
    const { ACTIVE, ERROR } = this.registers.CMDSTS.read();
    return ACTIVE ? -1 : ERROR;
  }

  /** Queue 0 is dedicated, with block on fault; queue 1 shared, 8 entries each and a threshold of 4. One engine for both. */
  configure(engines = 1n): this {
    this.group(0).WQS.at(0).write(3n);
    this.group(0).ENGINES.write(engines);
    for (const index of [0, 1]) {
      const { SIZE, MODE, LIMITS, THRESHOLD } = this.queue(index);
      SIZE.write({ ENTRIES: 8 });
      THRESHOLD.write({ ENTRIES: 4 });
      const shared = { PASID_ENABLE: 1 };
      MODE.write({ PRIORITY: 5, BLOCK_ON_FAULT: 1, ...(index === 0 ? { DEDICATED: 1 } : shared) });
      LIMITS.write({ MAX_TRANSFER: 20, MAX_BATCH: 4 });
    }
    return this;
  }

  /** Enabled, both queues too. `mode`: what is different of queue 0's MODE. */
  enable(engines = 1n, mode: { PRS_DISABLE?: number; BLOCK_ON_FAULT?: number } = {}): this {
    this.configure(engines);
    this.queue(0).MODE.update(mode);
    for (const [command, operand] of [
      [COMMAND.ENABLE_DEVICE, 0],
      [COMMAND.ENABLE_WQ, 0],
      [COMMAND.ENABLE_WQ, 1],
    ])
      expect(this.command(command, operand)).toBe(0);
    return this;
  }

  /** Memory for a completion record. */
  record() {
    const at = 32 * this.#records++;
    const bytes = this.#memory.bytes.subarray(at, at + 32);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 32);
    const read = () => ({
      status: view.getUint8(0),
      result: view.getUint8(1),
      completed: view.getUint32(4, true),
      address: view.getBigUint64(8, true),
      invalidFlags: view.getUint32(16, true),
    });
    const crc = () => view.getUint32(16, true);
    return { address: this.#memory.iova + BigInt(at), read, crc };
  }

  /** Writes a descriptor to a portal, as MOVDIR64B does. */
  submit(sketch: Sketch, { queue = 0, portal = 0 } = {}): void {
    this.device.region('bar2').writeBlock((4 * queue + portal) * reg.PORTAL_BYTES, descriptor(sketch));
  }

  /** As ENQCMD does; false: retry. */
  enqueue(sketch: Sketch, { queue = 1, portal = 0 } = {}): boolean | undefined {
    const offset = (4 * queue + portal) * reg.PORTAL_BYTES;
    return this.dsa.enqueue(2, offset, descriptor({ pasid: PASID, ...sketch }));
  }

  /** Does a descriptor with a record, whole; what the record says. */
  do(sketch: Sketch) {
    const record = this.record();
    this.submit({ record: record.address, ...sketch, flags: FLAG.REQUEST_RECORD | (sketch.flags ?? 0) });
    this.machine.idle();
    return record.read();
  }
}
