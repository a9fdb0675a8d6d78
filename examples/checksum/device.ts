/** A simulated device, as small as one with DMA, page faults, PASIDs and an interrupt can be: it computes CRCs of memory. */
import { DmaError, endpoint, PciDevice, type Process } from 'iommufd/sim';
import { CHECKSUM, DEVICE_ID, VENDOR_ID } from './registers';

/** Bytes that it reads at a time, and how long it computes over each. */
const BLOCK = 4096;
const NANOSECONDS_PER_BYTE = 0.25;

function crc32(before: number, bytes: Uint8Array): number {
  let crc = ~before;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

export class ChecksumDevice extends PciDevice {
  // What software may do with each register follows from the declaration; the device hears of writes to one.
  readonly #registers = this.registers(0, CHECKSUM, {
    CONTROL: {
      written: ({ START }) => {
        if (START && !this.#registers.STATUS.field('BUSY')) this.start(this.#compute());
      },
    },
  });

  constructor() {
    // Configuration space: MSI-X gets a BAR of its own; power management and function level reset are there.
    super(
      endpoint({
        ...{ vendorId: VENDOR_ID, deviceId: DEVICE_ID, classCode: 0x0b4000 },
        ...{ bars: { 0: 4096 }, msix: 1, ats: true, pri: 16, pasid: 20 },
      }),
    );
  }

  /** What it does over time: it waits wherever there is a `yield*`. A reset ends it there. */
  *#compute(): Process {
    const { STATUS, RESULT, CAUSE, FAULT_ADDRESS, CONTROL, SOURCE, LENGTH } = this.#registers;
    STATUS.write({ BUSY: 1 });
    const { PASID_ENABLE, PASID } = CONTROL.read();
    const [source, length] = [SOURCE.read(), LENGTH.read()];
    try {
      let crc = 0;
      for (let done = 0; done < length; done += BLOCK) {
        const size = Math.min(BLOCK, length - done);
        const options = { pasid: PASID_ENABLE ? PASID : undefined };
        const bytes = yield* this.dma.read(source + BigInt(done), size, options);
        yield* this.delay(size * NANOSECONDS_PER_BYTE);
        crc = crc32(crc, bytes);
      }
      RESULT.write(crc);
      CAUSE.update({ DONE: 1 });
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      FAULT_ADDRESS.write(error.address);
      CAUSE.update({ FAILED: 1 });
    }
    STATUS.write({ BUSY: 0 });
    this.raiseMsi(0);
  }
}
