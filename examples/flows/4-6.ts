/** RFC, section 4.6: an I/O page fault, from {rid, pasid, addr} to {ioasid, cookie, addr}, and its completion. */
import type { Fault, FaultQueue } from 'iommufd';
import { EngineDriver } from '../engine';
import { GuestTable } from './guest-table';
import { hex, type Flow, type Stage } from './stage';

const COOKIE = 0x600d_c00c1en;
const GPA = 0x10_0000n;
const TABLE = 2;
const GVA = 0x7000_0000n;
const VPASID = 9;
const DATA = new TextEncoder().encode('written by a device that had to wait');
/** What the guest calls its device. */
const V_RID = 0x18;

export const flow46: Flow = {
  section: '4.6',
  title: 'an I/O page fault',
  run: (stage) => (stage.iommu.backend === 'simulated' ? onVtd(stage) : onMock(stage)),
};

/** The user's handler: who and where, in the guest's terms; `fix` mends the table, and the fault is completed. */
async function handle(
  { step, check }: Stage,
  faults: FaultQueue,
  ioasid: number,
  fix: (fault: Fault) => void,
): Promise<void> {
  const fault = await faults.next({ timeout: 5000 });
  step(
    `the fault region has {ioasid ${fault.ioasid}, cookie ${hex(fault.cookie)}, addr ${hex(fault.address)}}`,
  );
  check(fault.cookie === COOKIE, `the cookie says which device: v_rid ${hex(V_RID)}`);
  check(
    fault.ioasid === ioasid && fault.pasid === VPASID,
    `the IOASID says which space: v_pasid ${fault.pasid}`,
  );
  step('the user gives the guest the fault; the guest mends its page table');
  fix(fault);
  step(`complete {ioasid ${fault.ioasid}, cookie ${hex(fault.cookie)}, success}`);
  check(fault.respond('success'), 'the kernel has answered {rid, pasid, success} to the device');
}

async function onVtd(stage: Stage): Promise<void> {
  const { iommu, step, check } = stage;
  step(`bind the device with cookie ${hex(COOKIE)}; allocate gpa_ioasid; map guest memory`);
  const engine = EngineDriver.open(iommu, COOKIE);
  const gpa = iommu.createAddressSpace({ nestParent: true, pasid: true });
  engine.device.attach(gpa);
  const memory = iommu.allocateDma(8 * 4096);
  gpa.map(memory, { iova: GPA });

  step(`allocate gva_ioasid with the guest's page table, faults wanted; attach it as v_pasid ${VPASID}`);
  const table = new GuestTable(memory, TABLE, GPA + BigInt(TABLE * 4096));
  const faults = iommu.createFaultQueue();
  const pageTable = { address: table.gpa, width: 48 } as const;
  const gva = iommu.createAddressSpace({ owner: 'user', parent: gpa, pageTable, pasid: true, faults });
  engine.device.attach(gva, { pasid: VPASID });

  step(`the device writes to ${hex(GVA)}, which the guest has not mapped, and asks for the page`);
  const written = engine.write(GVA, DATA, { pasid: VPASID, askForPages: true });
  await handle(stage, faults, gva.ioasid, ({ address }) => table.set(address, GPA));
  check(await written, 'the access went through');
  check(Buffer.from(memory.bytes.subarray(0, DATA.length)).equals(DATA), 'its bytes are in guest memory');
}

/** The kernel's mock device reports faults on command; its table is the kernel's. */
async function onMock(stage: Stage): Promise<void> {
  const { iommu, step, check } = stage;
  step(`bind the (mock) device with cookie ${hex(COOKIE)}`);
  const device = iommu.createMockDevice({ cookie: COOKIE, pasid: true });
  device.attach(iommu.createAddressSpace({ pasid: true }));

  step(`allocate gva_ioasid, faults wanted; attach it as v_pasid ${VPASID}`);
  const faults = iommu.createFaultQueue();
  const gva = iommu.createAddressSpace({ pasid: true, faults });
  device.attach(gva, { pasid: VPASID });

  step(`the device touches ${hex(GVA)}, which is not mapped`);
  device.triggerFault({ pasid: VPASID, address: GVA, permissions: { write: true } });
  const page = iommu.allocateDma(4096);
  await handle(stage, faults, gva.ioasid, ({ address }) => gva.map(page, { iova: address }));
  check(device.translates(GVA, page, { pasid: VPASID }), 'the page is where the device looks');
}
