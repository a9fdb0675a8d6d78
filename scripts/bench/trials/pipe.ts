/** Trial: the kernel's records from a pipe. Arguments: read (fs.read for each), stream (fs.createReadStream); milliseconds. */
import { createReadStream, read } from 'node:fs';
import { FAULT_SOURCE_BYTES, faultRecord } from '../../../lib/rings/layout';
import { reportUnavailable } from './measure';
import { Meter, produceIntoPipe } from './producer';

/** Records in a timed slice: those read one by one are slow. */
const [SLOW_SLICE, FAST_SLICE] = [512, 16_384];

function readEach(fd: number, meter: Meter): void {
  const bytes = new Uint8Array(FAULT_SOURCE_BYTES);
  const view = new DataView(bytes.buffer);
  const next = () =>
    read(fd, bytes, 0, bytes.length, null, (error, length) => {
      if (error) throw error;
      if (length !== bytes.length) throw new Error(`${length} bytes of a record`);
      meter.see(view.getUint32(faultRecord.address, true));
      next();
    });
  next();
}

function readStream(fd: number, meter: Meter): void {
  let rest: Buffer = Buffer.alloc(0);
  createReadStream('', { fd }).on('data', (chunk) => {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk as Buffer]) : (chunk as Buffer);
    let at = 0;
    for (; at + FAULT_SOURCE_BYTES <= bytes.length; at += FAULT_SOURCE_BYTES)
      meter.see(bytes.readUInt32LE(at + faultRecord.address));
    rest = bytes.subarray(at);
  });
}

const fd = produceIntoPipe();
if (typeof fd !== 'number') reportUnavailable(fd.unavailable);
else if (process.argv[2] === 'read') readEach(fd, new Meter(SLOW_SLICE));
else readStream(fd, new Meter(FAST_SLICE));
