/**
 * The doorbell protocol of lib/rings/ring.ts as programs for interleave.ts: what Ring.publish, sleep, consume, respond
 * and wakePump do, and Pump::Run, MustStayAwake, Sleep, Move and Pass of native/pump.cc. Records are groups of one.
 */
import { PUMP_WAITS, PUMP_WAITS_FOR_ROOM } from '../../lib/rings/layout';
import type { Cpu, Order, Program } from './interleave';

/** What is done otherwise than it should be. */
export interface Mutation {
  /** The sleeper does not look again. */
  readonly noSecondLook?: boolean;
  /** The sleeper looks, and then says that it sleeps. */
  readonly looksFirst?: boolean;
  /** The other side takes the sleeper's word, and then stores the index. */
  readonly exchangesFirst?: boolean;
  /** How the sleeper stores its word. */
  readonly saying?: Order;
  /** How the other side stores its index and exchanges the word. */
  readonly publishing?: Order;
  /** The word is looked at and left as it is. */
  readonly leavesWord?: boolean;
  /** The pump does not notice that it was blocked, or no more, by what the JavaScript thread did meanwhile. */
  readonly forgetsPass?: boolean;
  /** The pump notes the consumer's index after it has looked for room. */
  readonly notesLate?: boolean;
}

const add = (cpu: Cpu, word: string, by = 1): void => cpu.store(word, cpu.load(word) + by, 'seq-cst');

/** Counts on, and returns the number. */
const next = (cpu: Cpu): number => {
  cpu.set('n', cpu.get('n') + 1);
  return cpu.get('n');
};

/** `steps` from `first` on, and then whatever `then` names. */
type Part = Program;

/** Stores an index and rings where `waiting` says that its reader sleeps. */
function publish(
  name: string,
  index: (cpu: Cpu) => void,
  { word, bell, counted }: { word: string; bell: string; counted?: boolean },
  then: string,
  { exchangesFirst, publishing, leavesWord }: Mutation,
): Part {
  const [store, exchange, ring] = [name, `${name}, exchange`, `${name}, ring`];
  return {
    [store]: (cpu) => {
      index(cpu);
      return exchangesFirst ? (cpu.get(name) === 0 ? then : ring) : exchange;
    },
    [exchange]: (cpu) => {
      const before = leavesWord ? cpu.load(word) : cpu.exchange(word, 0, publishing);
      if (!exchangesFirst) return before === 0 ? then : ring;
      cpu.set(name, before);
      return store;
    },
    [ring]: (cpu) => {
      cpu.store(bell, 1);
      if (counted) cpu.count('rings');
      return then;
    },
  };
}

/** The step of `publish` that comes first. */
const entry = (name: string, { exchangesFirst }: Mutation): string =>
  exchangesFirst ? `${name}, exchange` : name;

/** Publishes `count` records, one at a time, and ends with an error. */
export function producer(count: number, mutation: Mutation = {}): Program {
  const doorbell = { word: 'waiting', bell: 'bell', counted: true };
  const first = entry('publish', mutation);
  return {
    start: () => first,
    ...publish(
      'publish',
      (cpu) => cpu.store('head', next(cpu), mutation.publishing),
      doorbell,
      'more?',
      mutation,
    ),
    'more?': (cpu) => (cpu.get('n') < count ? first : entry('fail', mutation)),
    ...publish('fail', (cpu) => cpu.store('error', 1, mutation.publishing), doorbell, 'end', mutation),
  };
}

/** Says that it sleeps, looks again and sleeps; `something` says what `look` found. */
function sleeper(awake: string, look: (cpu: Cpu) => boolean, mutation: Mutation): Part {
  const { noSecondLook, looksFirst, saying } = mutation;
  return {
    sleep: (cpu) => {
      if (!looksFirst) return 'say';
      return look(cpu) ? awake : 'say';
    },
    say: (cpu) => {
      cpu.store('waiting', 1, saying);
      cpu.count('said');
      return noSecondLook || looksFirst ? 'wait' : 'look again';
    },
    'look again': (cpu) => (look(cpu) ? 'take back' : 'look for an error'),
    'look for an error': (cpu) => (cpu.load('error') === 0 ? 'wait' : 'take back'),
    'take back': (cpu) => {
      cpu.store('waiting', 0, saying);
      return awake;
    },
    wait: (cpu) => (cpu.load('bell') === 0 ? cpu.wait() : 'read the doorbell'),
    'read the doorbell': (cpu) => {
      cpu.store('bell', 0);
      return awake;
    },
  };
}

const available = (cpu: Cpu): boolean => cpu.load('head') !== cpu.get('tail');

/** Takes records until there is an error and nothing else. */
export function consumer(mutation: Mutation = {}): Program {
  return {
    look: (cpu) => {
      if (!available(cpu)) return 'over?';
      cpu.set('tail', cpu.load('head'));
      return 'consume';
    },
    consume: (cpu) => {
      cpu.store('tail', cpu.get('tail'));
      return 'look';
    },
    // An error comes behind all records.
    'over?': (cpu) => (cpu.load('error') === 0 ? 'sleep' : 'last look'),
    'last look': (cpu) => (available(cpu) ? 'look' : 'end'),
    ...sleeper('look', available, mutation),
  };
}

/** Records come into the kernel's file, one at a time. */
export function device(count: number): Program {
  return {
    arrive: (cpu) => {
      add(cpu, 'file');
      next(cpu);
      return cpu.get('n') < count ? 'arrive' : 'end';
    },
  };
}

/** What a pump is asked to do. */
export interface PumpSetting {
  readonly capacity: number;
  readonly limit: number;
  readonly mutation?: Mutation;
}

const lock = (then: string) => (cpu: Cpu) => {
  if (cpu.load('mutex') !== 0) return cpu.wait();
  cpu.store('mutex', 1);
  return then;
};
const unlock = (then: string) => (cpu: Cpu) => {
  cpu.store('mutex', 0);
  return then;
};

/** Pump::Move, with the mutex held. */
function move(name: string, fill: (cpu: Cpu) => boolean, then: string, setting: PumpSetting): Part {
  const { capacity, limit, mutation = {} } = setting;
  const part = (step: string) => `${name}, ${step}`;
  const note = (cpu: Cpu) => cpu.store('seenTail', cpu.load('tail'));
  const blocked = (cpu: Cpu) => {
    const used = cpu.load('ownHead') - cpu.load('tail');
    const full = used >= capacity || cpu.load('held') >= limit;
    cpu.store('blocked', full ? 1 : 0);
    return full;
  };
  return {
    [name]: (cpu) => {
      const written = cpu.load('responseHead');
      add(cpu, 'held', cpu.load('responseTail') - written);
      cpu.store('responseTail', written);
      return fill(cpu) ? part('note') : then;
    },
    [part('note')]: (cpu) => {
      if (!mutation.notesLate) note(cpu);
      return part('room');
    },
    [part('room')]: (cpu) => {
      const full = blocked(cpu);
      return full ? part('note late') : part('read');
    },
    [part('note late')]: (cpu) => {
      if (mutation.notesLate) note(cpu);
      return then;
    },
    [part('read')]: (cpu) => {
      if (cpu.load('file') === 0) return then;
      add(cpu, 'file', -1);
      add(cpu, 'held');
      return part('publish');
    },
    ...publish(
      part('publish'),
      (cpu) => {
        add(cpu, 'ownHead');
        cpu.store('head', cpu.load('ownHead'));
      },
      { word: 'waiting', bell: 'bell', counted: true },
      part('note'),
      {},
    ),
  };
}

/** The pump's thread: Pump::Run and Pump::Sleep. */
export function pump(setting: PumpSetting): Program {
  const { noSecondLook, looksFirst, saying, forgetsPass } = setting.mutation ?? {};
  const say = (cpu: Cpu) => {
    cpu.store('sleepsBlocked', cpu.load('blocked'));
    cpu.store('pumpWaiting', cpu.load('blocked') === 1 ? PUMP_WAITS_FOR_ROOM : PUMP_WAITS, saying);
  };
  return {
    start: lock('move'),
    ...move('move', () => true, 'say', setting),
    say: (cpu) => {
      if (!looksFirst) say(cpu);
      return 'between';
    },
    between: unlock('second look'),
    'second look': lock('see responses'),
    'see responses': (cpu) => {
      cpu.set('stay', cpu.load('responseHead') === cpu.load('responseTail') ? 0 : 1);
      return 'see tail';
    },
    'see tail': (cpu) => {
      const blocked = cpu.load('blocked');
      if (blocked === 1 && cpu.load('tail') !== cpu.load('seenTail')) cpu.set('stay', 1);
      if (!forgetsPass && blocked !== cpu.load('sleepsBlocked') && !looksFirst) cpu.set('stay', 1);
      if (noSecondLook) cpu.set('stay', 0);
      cpu.set('watch', 1 - blocked);
      return looksFirst && cpu.get('stay') === 0 ? 'say late' : 'decide';
    },
    'say late': (cpu) => {
      say(cpu);
      return 'decide';
    },
    decide: (cpu) => unlock(cpu.get('stay') === 1 ? 'start' : 'poll')(cpu),
    poll: (cpu) => {
      cpu.set('kicked', cpu.load('kick'));
      const ready = cpu.get('kicked') === 1 || (cpu.get('watch') === 1 && cpu.load('file') > 0);
      return ready ? 'awake' : cpu.wait();
    },
    awake: (cpu) => {
      cpu.store('pumpWaiting', 0);
      return 'read the kick';
    },
    'read the kick': (cpu) => {
      if (cpu.get('kicked') === 1) cpu.store('kick', 0);
      return 'start';
    },
  };
}

/** Pump::Pass, from the JavaScript thread. */
function pass(name: string, fill: boolean, then: string, setting: PumpSetting): Part {
  return {
    [name]: lock(`${name}, move`),
    ...move(`${name}, move`, (cpu) => fill || cpu.load('blocked') === 1, `${name}, tell`, setting),
    [`${name}, tell`]: (cpu) => {
      if (cpu.load('sleepsBlocked') === 1 && cpu.load('blocked') === 0) {
        cpu.store('sleepsBlocked', 0);
        cpu.store('kick', 1);
      }
      return `${name}, unlock`;
    },
    [`${name}, unlock`]: unlock(then),
  };
}

/** Another thread's program that has the pump pass on what there is, and ends. */
export function passer(setting: PumpSetting): Program {
  return { ...pass('first', true, 'second', setting), ...pass('second', false, 'end', setting) };
}

/** Ring.consume: gives a slot back, and wakes a pump that waits for it. */
function consume(then: string, wake: string, { capacity, mutation = {} }: PumpSetting): Part {
  const { exchangesFirst, publishing } = mutation;
  const store = (cpu: Cpu) => cpu.store('tail', cpu.get('tail'), publishing);
  return {
    consume: (cpu) => {
      cpu.set('tail', cpu.get('tail') + 1);
      if (!exchangesFirst) store(cpu);
      return 'see the pump';
    },
    'see the pump': (cpu) => (cpu.load('pumpWaiting') === PUMP_WAITS_FOR_ROOM ? 'half free?' : 'store late'),
    'half free?': (cpu) =>
      2 * (cpu.load('head') - cpu.get('tail')) <= capacity ? 'wake for room' : 'store late',
    'wake for room': (cpu) => {
      cpu.set('wake', cpu.exchange('pumpWaiting', 0, publishing));
      return 'store late';
    },
    'store late': (cpu) => {
      if (exchangesFirst) store(cpu);
      const waking = cpu.get('wake') !== 0;
      cpu.set('wake', 0);
      return waking ? wake : then;
    },
  };
}

const respond = (cpu: Cpu, order: Order | undefined): void => {
  cpu.set('answered', cpu.get('answered') + 1);
  cpu.store('responseHead', cpu.get('answered'), order);
};

/** A consumer in another thread or process, which wakes the pump by its doorbell. It answers records, or not. */
export function remoteConsumer(count: number, answers: boolean, setting: PumpSetting): Program {
  const mutation = setting.mutation ?? {};
  const kick = (cpu: Cpu) => cpu.store('kick', 1);
  const answer = answers ? entry('answer', mutation) : 'look';
  return {
    look: (cpu) => {
      if (cpu.get('tail') === count) return 'end';
      return available(cpu) ? 'consume' : 'sleep';
    },
    ...consume(answer, 'ring for room', setting),
    'ring for room': (cpu) => {
      kick(cpu);
      return answer;
    },
    ...publish(
      'answer',
      (cpu) => respond(cpu, mutation.publishing),
      { word: 'pumpWaiting', bell: 'kick' },
      'look',
      mutation,
    ),
    ...sleeper('look', available, {}),
  };
}

/** A consumer in the thread that passes: `asks` says whether it passes before or behind its answers. */
export function localConsumer(count: number, asks: 'before' | 'behind', setting: PumpSetting): Program {
  const mutation = setting.mutation ?? {};
  return {
    ...pass('ask first', true, 'look', setting),
    look: (cpu) => {
      if (cpu.get('answered') === count) return 'end';
      return available(cpu) ? 'consume' : 'sleep';
    },
    ...consume(asks === 'before' ? 'ask before' : 'answer', 'flush for room', setting),
    ...pass('flush for room', false, asks === 'before' ? 'ask before' : 'answer', setting),
    ...pass('ask before', true, 'answer', setting),
    answer: (cpu) => {
      respond(cpu, mutation.publishing);
      return 'flush';
    },
    ...pass('flush', false, asks === 'behind' ? 'ask behind' : 'look', setting),
    ...pass('ask behind', true, 'look', setting),
    ...sleeper('look', available, {}),
  };
}

/** All words at their beginning. */
export const WORDS = {
  ...{ head: 0, tail: 0, error: 0, waiting: 0, bell: 0, pumpWaiting: 0, kick: 0, responseHead: 0 },
  // The pump's own, which a mutex guards.
  ...{ mutex: 0, ownHead: 0, responseTail: 0, held: 0, blocked: 0, seenTail: 0, sleepsBlocked: 0 },
  // The kernel's file, and what is counted.
  ...{ file: 0, said: 0, rings: 0 },
};
