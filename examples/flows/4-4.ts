/** RFC, section 4.4: nesting in hardware. The guest keeps its own table; the IOMMU walks both. */
import { IOMMU_TEST_INVALIDATE_FLAG_ALL } from 'iommufd/uapi';
import { EngineDriver } from '../engine';
import { GuestTable } from './guest-table';
import { hex, type Flow, type Stage } from './stage';

const GPA = 0x10_0000n;
const TABLE = 2;
const GIOVA = 0x4000_0000n;
/** enum iommu_hwpt_data_type and iommu_hwpt_invalidate_data_type of the mock IOMMU (iommufd_test.h). */
const MOCK_TABLE = 0xdead;
const MOCK_INVALIDATION = 0xdeadbeef;
/** The mock IOMMU translates addresses from 16 MiB on. */
const MOCK_GPA = 0x100_0000n;
const HELLO = new TextEncoder().encode('guest data');

export const flow44: Flow = {
  section: '4.4',
  title: 'nesting in hardware',
  run: (stage) => (stage.iommu.backend === 'simulated' ? onVtd(stage) : onMock(stage)),
};

async function onVtd({ iommu, step, check }: Stage): Promise<void> {
  step('bind device 2; allocate gpa_ioasid as a parent; attach; map guest memory');
  const engine = EngineDriver.open(iommu, 2n);
  const gpa = iommu.createAddressSpace({ nestParent: true });
  engine.device.attach(gpa);
  const memory = iommu.allocateDma(8 * 4096);
  gpa.map(memory, { iova: GPA });

  const table = new GuestTable(memory, TABLE, GPA + BigInt(TABLE * 4096));
  table.set(GIOVA, GPA);
  step(
    `the guest has a page table at GPA ${hex(table.gpa)}: allocate giova_ioasid, user-managed, on gpa_ioasid`,
  );
  const pageTable = { address: table.gpa, width: 48 } as const;
  const giova = iommu.createAddressSpace({ owner: 'user', parent: gpa, pageTable });
  engine.device.attach(giova, { replace: true });
  await engine.write(GIOVA, HELLO);
  check(
    Buffer.from(memory.bytes.subarray(0, HELLO.length)).equals(HELLO),
    'device 2 writes guest memory through both tables',
  );

  step(
    'the guest leads the address to another page, and invalidates it in its vIOMMU: invalidate giova_ioasid',
  );
  table.set(GIOVA, GPA + 4096n);
  giova.invalidate({ device: 2n, range: { iova: GIOVA, length: 4096 }, leaf: true });
  await engine.write(GIOVA, HELLO);
  check(memory.bytes[4096] === HELLO[0], 'device 2 writes the other page');
}

/** The kernel's mock IOMMU has nested tables without contents: what can be seen is that invalidation arrives. */
function onMock({ iommu, step, check }: Stage): void {
  step('bind device 2 (of the mock IOMMU); allocate gpa_ioasid as a parent; attach; map guest memory');
  const device = iommu.createMockDevice({ cookie: 2n });
  const gpa = iommu.createAddressSpace({ nestParent: true });
  device.attach(gpa);
  gpa.map(iommu.allocateDma(8 * 4096), { iova: MOCK_GPA });

  step('the guest has a page table: allocate giova_ioasid, user-managed, on gpa_ioasid');
  const pageTable = { type: MOCK_TABLE, bytes: Uint8Array.of(0xef, 0xbe, 0xad, 0xde) };
  const giova = iommu.createAddressSpace({ owner: 'user', parent: gpa, pageTable });
  device.attach(giova, { replace: true });
  check(device.attached() === giova, 'device 2 goes through the guest’s table');

  step('the guest invalidates all of it in its vIOMMU: invalidate giova_ioasid');
  const all = new Uint8Array(8);
  all[0] = IOMMU_TEST_INVALIDATE_FLAG_ALL;
  giova.invalidate({ type: MOCK_INVALIDATION, entries: [all] });
  check(true, 'the IOMMU has taken it');
}
