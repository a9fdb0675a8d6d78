/** Sequences and results as text. */
import { resultName } from './difference';
import { fieldAt } from './layouts';
import type { Call, CallRecord, Change, FdRef, Sequence, Value, Words } from './program';
import type { Found, IoctlCount } from './compare';

function literal(value: number | string): string {
  const number = typeof value === 'number' ? value : Number(value);
  return typeof value === 'number' && Math.abs(number) > 255 ? `0x${number.toString(16)}` : String(value);
}

function fdText(fd: FdRef): string {
  return typeof fd === 'number' ? `#${fd}` : fd;
}

function valueText(value: Value): string {
  if (typeof value !== 'object') return literal(value);
  if ('fd' in value) return `fd ${fdText(value.fd)}`;
  if ('at' in value) return `&${value.at}[${literal(value.offset)}]`;
  return `#${value.of}.${value.field}${value.plus ? ` + ${literal(value.plus)}` : ''}`;
}

function wordsText({ offset, width, values }: Words, what: string): string {
  return ` ${what}[${literal(offset)}] = u${width * 8} {${values.map(valueText).join(', ')}}`;
}

function callText(call: Call): string {
  switch (call.op) {
    case 'open':
      return `open ${call.path}`;
    case 'eventfd':
      return `eventfd ${literal(call.initial)}`;
    case 'status':
      return `pages of ${call.line}`;
    case 'close':
      return `close ${fdText(call.fd)}`;
    case 'poll':
      return `poll ${fdText(call.fd)} events ${literal(call.events)}`;
    case 'mmap':
      return `mmap ${fdText(call.fd)} offset ${literal(call.offset)} length ${literal(call.length)}`;
    case 'munmap':
      return `munmap #${call.mapping}`;
    case 'read':
      return `read ${fdText(call.fd)} ${call.length} bytes`;
    case 'pread':
      return `pread ${fdText(call.fd)} ${call.length} bytes at ${literal(call.offset)}`;
    case 'write':
      return `write ${fdText(call.fd)} ${call.length} bytes${wordsText(call.bytes, 'buffer')}`;
    case 'pwrite':
      return `pwrite ${fdText(call.fd)} ${call.length} bytes at ${literal(call.offset)}${wordsText(call.bytes, 'buffer')}`;
    case 'ioctl': {
      const fields = Object.entries(call.fields).map(([name, value]) => `${name}: ${valueText(value)}`);
      const extra = call.extra ? wordsText(call.extra, 'argument') : '';
      const scratch = (call.scratch ?? []).map((words) => wordsText(words, 'scratch')).join('');
      const argument = call.argument === undefined ? '' : ` argument ${literal(call.argument)}`;
      const request = typeof call.request === 'number' ? literal(call.request) : call.request;
      return `${request} ${fdText(call.fd)} {${fields.join(', ')}}${extra}${scratch}${argument}`;
    }
  }
}

function changeText(call: Call, { area, offset, bytes }: Change): string {
  const field = area === 'argument' && call.op === 'ioctl' ? fieldAt(String(call.request), offset) : '';
  return `${field || `${area}[${literal(offset)}]`}=${bytes.length > 64 ? `${bytes.slice(0, 64)}…` : bytes}`;
}

export function recordText(call: Call, { result, changes }: CallRecord): string {
  return [resultName(result), ...changes.map((change) => changeText(call, change))].join(' ');
}

/** One line per call: label, call, result. */
export function sequenceText({ name, calls }: Sequence, records: readonly CallRecord[]): string {
  const lines = calls.map(
    (call, i) => `  #${call.label} ${callText(call)} → ${recordText(call, records[i])}`,
  );
  return [name, ...lines].join('\n');
}

/** A difference: the sequence with what the last call did on each. */
export function foundText({ signature, times, sequence, simulated, linux }: Found): string {
  const { calls } = sequence;
  const last = calls.length - 1;
  const before = calls
    .slice(0, -1)
    .map((call, i) => `  #${call.label} ${callText(call)} → ${recordText(call, linux[i])}`);
  return [
    `${signature}  (${times} sequences)`,
    ...before,
    `  #${calls[last].label} ${callText(calls[last])}`,
    `      simulated: ${recordText(calls[last], simulated[last])}`,
    `      Linux:     ${recordText(calls[last], linux[last])}`,
  ].join('\n');
}

/** A line per ioctl and system call: how often it was made, and with what result. */
export function countsTable(byIoctl: Readonly<Record<string, IoctlCount>>): string {
  const rows = Object.entries(byIoctl).sort(([a], [b]) => (a < b ? -1 : 1));
  const width = Math.max(...rows.map(([name]) => name.length));
  const line = (name: string, calls: string, differences: string, results: string) =>
    `${name.padEnd(width)}  ${calls.padStart(9)}  ${differences.padStart(6)}  ${results}`;
  return [
    line('Call', 'Calls', 'Differ', 'Results'),
    ...rows.map(([name, { calls, differences, results }]) => {
      const often = Object.entries(results).sort(([, a], [, b]) => b - a);
      const text = often.map(([result, times]) => `${result === '0' ? 'done' : result} ${times}`);
      return line(name, String(calls), String(differences), text.join(', '));
    }),
  ].join('\n');
}
