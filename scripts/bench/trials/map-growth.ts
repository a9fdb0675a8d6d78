/**
 * Trial: AddressSpace.map of a page where the kernel finds room, the last thousand of so many, simulated, with a device
 * attached. Arguments: how many in the end, at least a thousand; milliseconds.
 */
import { Iommu, type Mapping } from '../../../lib';
import { Machine } from '../../../lib/sim';
import { measure, report } from './measure';

const CALLS = 16;
const LAST = 1008;
/** As many at a time are made beforehand. */
const CHUNK = 4096;
const WARM = 20_000;

async function main(): Promise<void> {
  const live = Number(process.argv[2]) - LAST;
  using iommu = Iommu.open({ backend: new Machine() });
  const space = iommu.createAddressSpace();
  iommu.bind('0000:00:04.0', { cookie: 1 }).attach(space);
  const source = iommu.allocateDma(4096);
  // However few are made: the JIT must not be what the sides differ in.
  for (let i = 0; i < WARM; i++) space.map(source).unmap();
  for (let made = 0; made < live; made += CHUNK)
    space.mapMany(Array.from({ length: Math.min(CHUNK, live - made) }, () => ({ source })));
  const last: Mapping[] = [];
  const prepare = () => {
    if (last.length === LAST) space.unmapMany(last.splice(0));
  };
  const value = await measure({ calls: CALLS, prepare }, () => {
    for (let i = 0; i < CALLS; i++) last.push(space.map(source));
  });
  report(value);
}

void main();
