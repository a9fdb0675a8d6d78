/** What a virtual IOMMU reports, and how its records are read. */
import type { BoundDevice } from './bound-device';
import * as uapi from './uapi';

/** A record of the SMMUv3 event queue (Arm SMMUv3 specification, section 7.3), its stream ID a virtual device's. */
export interface SmmuEvent {
  readonly type: 'arm-smmuv3';
  /** Event number: 0x10 is F_TRANSLATION. */
  readonly id: number;
  /** Its name in the specification; undefined for one that Linux does not forward. */
  readonly name: string | undefined;
  /** The virtual device's `virtId`. */
  readonly streamId: bigint;
  /** The device it stands for, if it is still there. */
  readonly device: BoundDevice | undefined;
  /** The PASID, if the event has one. */
  readonly substreamId: number | undefined;
  /** The transaction waits for an answer under this tag. */
  readonly stallTag: number | undefined;
  readonly privileged: boolean;
  readonly instruction: boolean;
  /** A read; false: a write. */
  readonly read: boolean;
  /** Stage 2 found it; then `ipa` counts. */
  readonly stage2: boolean;
  readonly address: bigint;
  readonly ipa: bigint;
}

/** Errors of Tegra241's virtual command queues (LVCMDQ_ERR_MAP). */
export interface Tegra241Event {
  readonly type: 'tegra241-cmdqv';
  /** The queues that have an error. */
  readonly queues: readonly number[];
}

/** A record of a type this package has no name for. */
export interface RawEvent {
  readonly type: 'raw';
}

/** No record: the queue was full, and what was lost is the newest. */
export interface LostEvents {
  readonly type: 'lost';
}

/** One entry of an event queue. */
export type VirtualEvent = (SmmuEvent | Tegra241Event | RawEvent | LostEvents) & {
  /** Its number, 0 to 2^31 - 1 and then 0 again; lost events have one too. */
  readonly sequence: number;
  /** How many events were lost since the entry before; with type 'lost', at the end of the queue. */
  readonly lost: number;
  /** The kernel's record; empty with type 'lost'. */
  readonly data: Uint8Array;
};

/** The event numbers that Linux forwards (linux/iommufd.h, struct iommu_vevent_arm_smmuv3). */
const SMMU_EVENTS: Readonly<Record<number, string>> = {
  0x04: 'C_BAD_STE',
  0x06: 'F_STREAM_DISABLED',
  0x08: 'C_BAD_SUBSTREAMID',
  0x0a: 'C_BAD_CD',
  0x10: 'F_TRANSLATION',
  0x11: 'F_ADDR_SIZE',
  0x12: 'F_ACCESS',
  0x13: 'F_PERMISSION',
};

/** Decodes an SMMUv3 record; `find` knows the virtual devices. */
export function decodeSmmuEvent(
  data: Uint8Array,
  find: (virtId: bigint) => BoundDevice | undefined,
): SmmuEvent {
  const { evt } = uapi.iommu_vevent_arm_smmuv3.decode(data);
  const bits = (word: number, high: number, low: number) =>
    (evt[word] >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);
  const flag = (word: number, bit: number) => bits(word, bit, bit) !== 0n;
  const id = Number(bits(0, 7, 0));
  const streamId = bits(0, 63, 32);
  return {
    type: 'arm-smmuv3',
    id,
    name: SMMU_EVENTS[id],
    streamId,
    device: find(streamId),
    substreamId: flag(0, 11) ? Number(bits(0, 31, 12)) : undefined,
    stallTag: flag(1, 31) ? Number(bits(1, 15, 0)) : undefined,
    privileged: flag(1, 33),
    instruction: flag(1, 34),
    read: flag(1, 35),
    stage2: flag(1, 39),
    address: evt[2],
    ipa: bits(3, 51, 12) << 12n,
  };
}

/** Decodes the error map: bit n of 128 is queue n. */
export function decodeTegra241Event(data: Uint8Array): Tegra241Event {
  const { lvcmdq_err_map: map } = uapi.iommu_vevent_tegra241_cmdqv.decode(data);
  const set = (queue: number) => (map[queue >> 6] >> BigInt(queue & 63)) & 1n;
  return { type: 'tegra241-cmdqv', queues: Array.from({ length: 128 }, (_, i) => i).filter(set) };
}
