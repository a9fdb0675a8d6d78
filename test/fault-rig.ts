/** A fault consumer over a scripted kernel. */
import type { Fault } from '../lib';
import { pages } from './rings/scenarios';
import { openSoftware, type SoftwareRig } from './rings/software-rig';

export const SUCCESS = 0;
export const INVALID = 1;
export const thrown = (what: object) => expect.objectContaining(what) as Error;

const rigs: SoftwareRig[] = [];
/** All are closed after the test. */
export function setUp(options?: Parameters<typeof openSoftware>[1]) {
  const rig = openSoftware(undefined, options);
  rigs.push(rig);
  const { file, consumer, pump } = rig;
  /** Groups of one, whose cookies are their page numbers. */
  const deliver = (...numbers: number[]) => {
    for (const n of numbers) file.deliver(pages(n, n));
  };
  /** The same, in the ring. */
  const publish = (...numbers: number[]) => {
    deliver(...numbers);
    pump.pass();
  };
  /** [cookie, code] of what was answered. */
  const answers = () => file.responses().map(({ cookie, code }) => [cookie, code]);
  const pending = () => numbersOf(consumer.pending);
  return { ...rig, deliver, publish, answers, pending };
}
afterEach(() => {
  for (const { consumer } of rigs.splice(0)) consumer.close();
});

/** The number of its page. */
export const numberOf = ({ address }: { readonly address: bigint }) => Number(address / 4096n);
export const numbersOf = (faults: readonly Fault[]) => faults.map(numberOf);
