/** Asynchronous events. NVM Express 1.4, 5.2. */
import { EVENT_LIMIT } from './identify';
import { LOG_PAGE } from './log-pages';

/** Asynchronous event type, bits 2:0 of dword 0 (figure 147). */
export const EVENT_TYPE = { ERROR: 0, HEALTH: 1, NOTICE: 2 } as const;
/** Asynchronous event information of an error (figure 148). */
export const ERROR_EVENT = {
  INVALID_DOORBELL_REGISTER: 0,
  INVALID_DOORBELL_VALUE: 1,
  DIAGNOSTIC_FAILURE: 2,
} as const;
/** Of SMART / health (figure 149). */
export const HEALTH_EVENT = { RELIABILITY: 0, TEMPERATURE: 1, SPARE: 2 } as const;

export type EventType = (typeof EVENT_TYPE)[keyof typeof EVENT_TYPE];

const PAGE_OF: Readonly<Record<EventType, number>> = {
  [EVENT_TYPE.ERROR]: LOG_PAGE.ERRORS,
  [EVENT_TYPE.HEALTH]: LOG_PAGE.HEALTH,
  [EVENT_TYPE.NOTICE]: LOG_PAGE.FIRMWARE,
};

export class AsyncEvents {
  /** Of requests without an answer: what gives them one. */
  #requests: ((result: number) => void)[] = [];
  #events: { readonly type: EventType; readonly result: number }[] = [];
  /** Types that were reported and whose log page was not read since: no more events of these. */
  readonly #masked = new Set<EventType>();

  /** Requests that wait, of EVENT_LIMIT + 1. */
  get full(): boolean {
    return this.#requests.length > EVENT_LIMIT;
  }

  /** An event has happened. Those of a type that was reported, and not looked at, are one. */
  report(type: EventType, information: number): void {
    if (this.#masked.has(type)) return;
    const result = type | (information << 8) | (PAGE_OF[type] << 16);
    if (this.#events.some((event) => event.result === result)) return;
    this.#events.push({ type, result });
    this.#serve();
  }

  /** Waits for the next event. Returns what ends the wait. */
  request(answer: (result: number) => void): () => void {
    this.#requests.push(answer);
    this.#serve();
    return () => {
      this.#requests = this.#requests.filter((other) => other !== answer);
    };
  }

  /** Software has read a log page, and did not ask to retain the event. */
  acknowledge(page: number): void {
    for (const type of this.#masked) if (PAGE_OF[type] === page) this.#masked.delete(type);
    this.#serve();
  }

  reset(): void {
    this.#requests = [];
    this.#events = [];
    this.#masked.clear();
  }

  #serve(): void {
    while (this.#requests.length > 0) {
      const index = this.#events.findIndex(({ type }) => !this.#masked.has(type));
      if (index < 0) return;
      const [{ type, result }] = this.#events.splice(index, 1);
      this.#masked.add(type);
      this.#requests.shift()?.(result);
    }
  }
}
