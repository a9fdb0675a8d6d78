/**
 * Every interleaving of the doorbell protocol (lib/rings/ring.ts), of both doorbells, also where plain stores become
 * visible late; and of the protocol with one thing left out, which must go wrong.
 */
import {
  consumer,
  device,
  localConsumer,
  producer,
  passer,
  pump,
  remoteConsumer,
  WORDS,
  type Mutation,
  type PumpSetting,
} from './doorbell-programs';
import { explore, type System, type Words } from './interleave';

/** A doorbell costs a system call: once for each time that its owner said it sleeps, at most. */
const always = (word: Words) =>
  word('rings') > word('said')
    ? `${word('rings')} rings for a consumer that slept ${word('said')} times`
    : undefined;

/** A producer that publishes some records and fails; its consumer sleeps in between. */
function records(count: number, ours: Mutation = {}, theirs: Mutation = ours): System {
  return {
    words: WORDS,
    programs: [producer(count, theirs), consumer(ours)],
    stuck: (word, [, at]) =>
      at === 'end' && word('tail') === count
        ? undefined
        : `the consumer is at '${at}', and has ${word('tail')} of ${count}`,
    always,
  };
}

/** A consumer elsewhere, of faults or of events; or one in the thread that passes on, before or behind its answers. */
type Who = 'remote' | 'remote, beside a passing thread' | 'remote, without answers' | 'before' | 'behind';

/** A pump, a file into which records come, and a consumer. */
function pumped(who: Who, count: number, setting: PumpSetting): System {
  const answering = who !== 'remote, without answers';
  const consuming =
    who === 'before' || who === 'behind'
      ? [localConsumer(count, who, setting)]
      : [remoteConsumer(count, answering, setting)];
  if (who === 'remote, beside a passing thread') consuming.push(passer(setting));
  return {
    words: WORDS,
    programs: [pump(setting), device(count), ...consuming],
    stuck: (word, [atPump, , at]) => {
      const [file, tail, answers] = ['file', 'tail', 'responseTail'].map(word);
      if (file === 0 && tail === count && answers === (answering ? count : 0) && at === 'end')
        return undefined;
      return `pump at '${atPump}', consumer at '${at}': ${file} in the file, ${tail} taken, ${answers} answered`;
    },
    always,
  };
}

/** Without answers, a limit is for ever. */
const settings = (who: Who) =>
  SETTINGS.filter(([, { limit }]) => limit > 2 || who !== 'remote, without answers');

const SETTINGS: [string, PumpSetting][] = [
  ['a full ring', { capacity: 1, limit: 9 }],
  ['a full ring of two', { capacity: 2, limit: 9 }],
  ['a limit', { capacity: 4, limit: 1 }],
  ['room', { capacity: 4, limit: 9 }],
];

describe("the consumer's doorbell", () => {
  test.each([1, 2, 3])('%i records and an error: none is slept through, and none rings twice', (count) => {
    const { states, ends, wrong, trace } = explore(records(count));
    expect({ wrong, trace }).toEqual({ wrong: undefined, trace: [] });
    expect(states).toBeGreaterThan(50 * count);
    expect(ends).toBeGreaterThan(0);
  });

  const MUTATIONS: [string, Mutation, Mutation][] = [
    ['no second look', { noSecondLook: true }, {}],
    ['a look before the word', { looksFirst: true }, {}],
    ['an exchange before the index', {}, { exchangesFirst: true }],
    ["a relaxed store of the sleeper's word", { saying: 'relaxed' }, {}],
    ['a relaxed store of the index and a relaxed exchange', {}, { publishing: 'relaxed' }],
  ];
  test.each(MUTATIONS)('%s: a wake-up is lost', (_, ours, theirs) => {
    const { wrong, trace } = explore(records(2, ours, theirs));
    expect(wrong).toMatch(/^the consumer is at 'wait'/);
    expect(trace.length).toBeGreaterThan(3);
  });

  test('a word that is looked at and not taken: a doorbell rings more often than its owner slept', () => {
    expect(explore(records(2, {}, { leavesWord: true })).wrong).toMatch(
      /^\d rings for a consumer that slept \d times$/,
    );
  });
});

describe("the pump's doorbell", () => {
  const CONSUMERS: [Who, number][] = [
    ['remote', 2],
    ['remote, without answers', 4],
    ['remote, beside a passing thread', 1],
    ['before', 2],
    ['behind', 2],
  ];
  describe.each(CONSUMERS)('consumer %s (%i records)', (who, count) => {
    test.each(settings(who))('%s', (_, setting) => {
      const { states, ends, wrong, trace } = explore(pumped(who, count, setting));
      expect({ wrong, trace }).toEqual({ wrong: undefined, trace: [] });
      expect(states).toBeGreaterThan(200);
      expect(ends).toBeGreaterThan(0);
    });
  });

  /** The first thing that goes wrong, in whatever setting. */
  function wrong(consumers: readonly Who[], mutation: Mutation): string | undefined {
    for (const who of consumers)
      for (const [, setting] of settings(who)) {
        const found = explore(pumped(who, 2, { ...setting, mutation })).wrong;
        if (found !== undefined) return found;
      }
    return undefined;
  }
  const LOST = /^pump at 'poll', consumer at /;

  const MUTATIONS: [string, Mutation][] = [
    ['no second look', { noSecondLook: true }],
    ['a look before the word', { looksFirst: true }],
    ["an exchange before the consumer's index", { exchangesFirst: true }],
    ["relaxed stores of the consumer's indices and relaxed exchanges", { publishing: 'relaxed' }],
    ["the consumer's index noted after the look for room", { notesLate: true }],
  ];
  test.each(MUTATIONS)('%s: a wake-up is lost', (_, mutation) => {
    expect(wrong(['remote', 'remote, without answers'], mutation)).toMatch(LOST);
  });

  test('a pump that was blocked by what the JavaScript thread did, and does not notice, sleeps for ever', () => {
    expect(wrong(['before', 'behind'], { forgetsPass: true })).toMatch(LOST);
  });
});
