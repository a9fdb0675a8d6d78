/**
 * The demo: a device does DMA through an IOMMU, is kept out of memory that is not its own, and a page fault is
 * answered. `npm run demo`, with `-- --json` for one JSON object.
 *
 * The same program runs on the simulated machine and, in a virtual machine or on hardware, on Linux's /dev/iommu.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Iommu, type IommuError } from 'iommufd';
import { EduDriver } from './drivers/edu/driver';
import { openFaultSource } from './fault-source';

const EDU_COOKIE = 0xed0_0000_0001n;
const FAULT_COOKIE = 0xfa0_0000_0002n;
/** Where the device touches memory that is not mapped: inside the range a mock device can translate. */
const FAULT_IOVA = 0x200_0000n;
const PASID = 5;
/** Bytes the device moves at a time. */
const BYTES = 2048;

const hex = (value: bigint) => `0x${value.toString(16)}`;

/** A device copies a buffer out and back through IOVAs, and cannot write where nothing is mapped. */
async function dma(iommu: Iommu, say: (line: string) => void) {
  const edu = EduDriver.open(iommu, EDU_COOKIE);
  const { bdf } = edu.device;
  say(`bound ${bdf} (edu) with cookie ${hex(EDU_COOKIE)}: its DMA is blocked now`);
  const space = iommu.createAddressSpace();
  edu.device.attach(space);

  const buffer = iommu.allocateDma(2 * BYTES);
  const { iova, length } = space.map(buffer);
  say(`attached it to IOASID ${space.ioasid}; mapped ${length} bytes at IOVA ${hex(iova)}`);

  const source = buffer.bytes.subarray(0, BYTES);
  const target = buffer.bytes.subarray(BYTES);
  source.set(randomBytes(BYTES));
  await edu.fetch(iova, BYTES);
  await edu.store(iova + BigInt(BYTES), BYTES);
  const verified = Buffer.compare(source, target) === 0;
  say(`the device read ${BYTES} random bytes and wrote them back: ${verified ? 'equal' : 'DIFFERENT'}`);

  // A page that was mapped a moment ago, so that its address is known and its bytes can be looked at.
  const canary = iommu.allocateDma(BYTES);
  const outside = space.map(canary);
  outside.unmap();
  canary.bytes.fill(0xa5);
  await edu.store(outside.iova, BYTES);
  const blockedOutside = canary.bytes.every((byte) => byte === 0xa5);
  say(
    `a write to ${hex(outside.iova)}, unmapped before, ${blockedOutside ? 'reached nothing' : 'WENT THROUGH'}`,
  );

  edu.close();
  return { bdf, cookie: hex(EDU_COOKIE), iova: hex(iova), bytes: BYTES, verified, blockedOutside };
}

/** A device touches a page that is not mapped; the program maps it and answers; the access goes on. */
async function pageFault(iommu: Iommu, say: (line: string) => void) {
  const source = openFaultSource(iommu, FAULT_COOKIE);
  say(`faults come from ${source.description}, cookie ${hex(FAULT_COOKIE)}`);
  const faults = iommu.createFaultQueue();
  // Beside a PASID's space the device needs one for requests without: both must allow PASIDs.
  const plain = iommu.createAddressSpace({ pasid: true });
  const space = iommu.createAddressSpace({ pasid: true, faults });
  source.device.attach(plain);
  source.device.attach(space, { pasid: PASID });

  source.touch(FAULT_IOVA, PASID);
  for await (const fault of faults) {
    const { ioasid, cookie, pasid, address, permissions } = fault;
    say(
      `fault: IOASID ${ioasid}, cookie ${hex(cookie)}, PASID ${pasid}, address ${hex(address)}, ` +
        Object.entries(permissions)
          .flatMap(([name, wanted]) => (wanted ? [name] : []))
          .join(' '),
    );
    const page = iommu.allocateDma(4096);
    space.map(page, { iova: address });
    const taken = fault.respond('success');
    say(`mapped the page and answered 'success'`);
    const recovered = taken && (await source.recovered(address, PASID, page));
    say(recovered ? 'the access went through' : 'the access FAILED');
    return {
      source: source.description,
      ioasid,
      cookie: hex(cookie),
      pasid: pasid ?? null,
      address: hex(address),
      response: 'success',
      recovered,
    };
  }
  throw new Error('the fault queue ended');
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
  const say = (line: string) => {
    if (!values.json) console.log(line);
  };
  using iommu = Iommu.open();
  const { backend, reason, kernelVersion: kernel } = iommu;
  say(`${backend} backend, because ${reason}; kernel: ${kernel}`);
  const result = { backend, reason, kernel, dma: await dma(iommu, say), fault: await pageFault(iommu, say) };
  if (values.json) console.log(JSON.stringify(result));
  const { verified, blockedOutside } = result.dma;
  if (!(verified && blockedOutside && result.fault.recovered)) process.exitCode = 1;
}

main().catch((error: unknown) => {
  const { message, code, reason, hint } = error as Partial<IommuError>;
  if (process.argv.includes('--json'))
    console.log(JSON.stringify({ error: { code, message, reason, hint } }));
  else console.error(message ?? error);
  process.exitCode = 1;
});
