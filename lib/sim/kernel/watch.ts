/** Readiness callbacks on the event loop, level-triggered as uv_poll's are. */
import type { Watch } from '../../kernel';
import type { OpenFile } from './file';
import type { System } from './system';

/** Longest delay a Node timer takes, in milliseconds. */
const FOREVER = 2 ** 31 - 1;

/** Calls back in each turn of the event loop in which one of `events` is ready. */
export function watchFile(
  system: System,
  file: OpenFile,
  events: number,
  callback: (ready: number) => void,
): Watch {
  let coming = false;
  let next: NodeJS.Immediate | undefined;
  let closed = false;
  // A watch is a reason for the program to stay, as a libuv handle is.
  const presence = setInterval(() => {}, FOREVER);

  const call = () => {
    next = undefined;
    coming = false;
    const ready = closed ? 0 : file.poll() & events;
    if (!ready) return;
    try {
      callback(ready);
    } finally {
      check();
    }
  };
  const check = () => {
    if (closed || coming || !(file.poll() & events)) return;
    coming = true;
    // In this turn, behind the events: a program that waits in poll(2) is waiting for them. A tick cannot be unref()ed.
    if (system.programsWait && presence.hasRef()) return process.nextTick(call);
    next = setImmediate(call);
    if (!presence.hasRef()) next.unref();
  };
  const stop = file.get().listen(check);
  check();
  return {
    close() {
      if (closed) return;
      closed = true;
      stop();
      clearInterval(presence);
      clearImmediate(next);
      file.put();
    },
    ref() {
      presence.ref();
      next?.ref();
    },
    unref() {
      presence.unref();
      next?.unref();
    },
  };
}
