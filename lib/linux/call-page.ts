/**
 * The addon's call page. It begins with two words: how many calls to make, and how many were made without an error; from
 * byte 16 on there are four words for each call: descriptor, request, offset of the struct, result. The addon reads them
 * there: crossing into it with arguments would cost more than storing them.
 */
import { MOST_CALLS, type CallPage } from '../kernel';
import type { Addon } from './addon';

const COUNT = 0;
const DONE = 1;
/** Word of the first call, and words of each. */
const CALLS = 4;
const WORDS = 4;
const REQUEST = 1;
const OFFSET = 2;
const RESULT = 3;

export class LinuxCallPage implements CallPage {
  readonly buffer: ArrayBuffer;
  readonly address: bigint;
  private readonly words: Int32Array;

  constructor(private readonly addon: Addon) {
    const buffer = addon.callPage();
    if (typeof buffer === 'number') throw new Error(`there is no memory for a call page (errno ${-buffer})`);
    this.buffer = buffer;
    this.words = new Int32Array(buffer);
    this.address = addon.addressOf(this.words);
  }

  ioctl(fd: number, request: number, offset: number): number {
    const { words } = this;
    check(fd, request, offset);
    words[COUNT] = 1;
    words[CALLS] = fd;
    words[CALLS + REQUEST] = request;
    words[CALLS + OFFSET] = offset;
    this.addon.runCalls();
    return present(words[CALLS + RESULT]);
  }

  describe(index: number, fd: number, request: number, offset: number): void {
    checkIndex(index);
    check(fd, request, offset);
    const { words } = this;
    const at = CALLS + index * WORDS;
    words[at] = fd;
    words[at + REQUEST] = request;
    words[at + OFFSET] = offset;
  }

  run(count: number): number {
    if (count !== 0) checkIndex(count - 1);
    this.words[COUNT] = count;
    this.addon.runCalls();
    return present(this.words[DONE]);
  }

  result(index: number): number {
    checkIndex(index);
    return present(this.words[CALLS + index * WORDS + RESULT]);
  }
}

function checkIndex(index: number): void {
  if (index >>> 0 !== index || index >= MOST_CALLS)
    throw new RangeError(`${index} is outside the ${MOST_CALLS} calls of a batch`);
}

/** What a store would turn into another integer must not get there. */
function check(fd: number, request: number, offset: number): void {
  if ((fd | 0) !== fd) throw new RangeError(`fd must be a 32-bit integer, not ${fd}`);
  if (request >>> 0 !== request) throw new RangeError(`request must be a 32-bit integer, not ${request}`);
  if (offset >>> 0 !== offset) throw new RangeError(`offset must be a 32-bit integer, not ${offset}`);
}

/** A word of the page: there is none once somebody has detached its buffer. */
function present(word: number | undefined): number {
  if (word === undefined) throw new TypeError('the call page was detached: nothing may transfer its buffer');
  return word;
}
