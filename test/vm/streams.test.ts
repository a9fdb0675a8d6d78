import fc from 'fast-check';
import { Log, MarkedStream } from '../../scripts/vm/streams';

const MARKER = Buffer.from('\0aab');

function collect(): { stream: MarkedStream; text: () => string } {
  const parts: Buffer[] = [];
  const stream = new MarkedStream(MARKER, (bytes) => parts.push(Buffer.from(bytes)));
  return { stream, text: () => Buffer.concat(parts).toString('latin1') };
}

describe('a marked stream', () => {
  it('passes on all bytes before the marker, however they are cut', () => {
    // Few different bytes, so that much looks like the start of a marker.
    const output = fc
      .string({ unit: fc.constantFrom('\0', 'a', 'b') })
      .filter((text) => !text.includes('\0aab'));
    const cuts = fc.infiniteStream(fc.integer({ min: 1, max: 5 }));
    fc.assert(
      fc.property(output, cuts, (text, sizes) => {
        const { stream, text: got } = collect();
        const all = Buffer.concat([Buffer.from(text), MARKER]);
        for (let at = 0; at < all.length;) {
          const size = sizes.next().value as number;
          stream.push(all.subarray(at, at + size));
          at += size;
        }
        // The output may itself end with what starts a marker, but never so that the first marker comes early.
        expect(got()).toBe(text);
        expect(stream.ended).toBe(true);
      }),
    );
  });

  it('passes on at once what cannot be the marker', () => {
    const { stream, text } = collect();
    stream.push(Buffer.from('ab\0aa'));
    expect(text()).toBe('ab');
    stream.push(Buffer.from('c'));
    expect(text()).toBe('ab\0aac');
  });

  it('passes on what was held when the stream breaks off', () => {
    const { stream, text } = collect();
    stream.push(Buffer.from('ab\0aa'));
    stream.flush();
    expect(text()).toBe('ab\0aa');
    expect(stream.ended).toBe(false);
  });

  it('takes nothing after the marker', () => {
    const { stream, text } = collect();
    stream.push(Buffer.concat([Buffer.from('x'), MARKER, Buffer.from('y')]));
    stream.push(Buffer.from('z'));
    stream.flush();
    expect(text()).toBe('x');
  });
});

describe('a log', () => {
  it('has its first and last lines, without empty ones', () => {
    const log = new Log();
    log.push(Buffer.from('one\r\n\r\ntw'));
    log.push(Buffer.from('o\nthree'));
    expect(log.first(2)).toEqual(['one', 'two']);
    expect(log.last(2)).toEqual(['two', 'three']);
    expect(log.last(9)).toEqual(['one', 'two', 'three']);
  });

  it('forgets what is in the middle of a long log', () => {
    const log = new Log(10);
    for (let line = 0; line < 1000; line++) log.push(Buffer.from(`${line}\n`));
    expect(log.first(2)).toEqual(['0', '1']);
    expect(log.last(2)).toEqual(['998', '999']);
  });
});
