/** Submission queue entries. NVM Express 1.4, 4.2. */
export const SUBMISSION_ENTRY = 64;
export const COMPLETION_ENTRY = 16;

/** Admin commands (figure 139). */
export const ADMIN = {
  DELETE_IO_SQ: 0x00,
  CREATE_IO_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_IO_CQ: 0x04,
  CREATE_IO_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
} as const;

/** Commands of the NVM command set (figure 346). */
export const NVM = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
} as const;

/** All namespaces (6.1.6). */
export const BROADCAST_NAMESPACE = 0xffff_ffff;

/** One command, as it was fetched. */
export class Command {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, SUBMISSION_ENTRY);
  }

  get opcode(): number {
    return this.#view.getUint8(0);
  }

  /** Fused operation, bits 9:8; not 0: this is half of one. */
  get fused(): number {
    return this.#view.getUint8(1) & 3;
  }

  /** PRP or SGL for data transfer, bits 15:14: 0 for PRPs, 1 and 2 for SGLs. */
  get dataPointerKind(): number {
    return this.#view.getUint8(1) >>> 6;
  }

  get id(): number {
    return this.#view.getUint16(2, true);
  }

  get namespace(): number {
    return this.#view.getUint32(4, true);
  }

  /** Metadata pointer. */
  get metadata(): bigint {
    return this.#view.getBigUint64(16, true);
  }

  /** PRP entry 1, or the first half of an SGL descriptor. */
  get prp1(): bigint {
    return this.#view.getBigUint64(24, true);
  }

  get prp2(): bigint {
    return this.#view.getBigUint64(32, true);
  }

  /** The 16 bytes of the SGL descriptor. */
  get sgl(): DataView {
    return new DataView(this.#view.buffer, this.#view.byteOffset + 24, 16);
  }

  /** Command dword 0 to 15. */
  dword(index: number): number {
    return this.#view.getUint32(4 * index, true);
  }

  /** A 64-bit value in two command dwords. */
  quad(index: number): bigint {
    return this.#view.getBigUint64(4 * index, true);
  }
}

/** A command that the controller has taken and not yet answered. */
export class Running {
  /** How it has to end, where somebody asked for its end. */
  endAs: number | undefined;
  /** Lets it go on from where it waits for that only. */
  wake: (() => void) | undefined;
  /** The device has forgotten it, and will never answer. */
  lost = false;

  constructor(readonly command: Command) {}

  end(status: number): void {
    this.endAs ??= status;
    const wake = this.wake;
    this.wake = undefined;
    wake?.();
  }
}
