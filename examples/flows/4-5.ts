/** RFC, section 4.5: the guest's processes share their address spaces with devices (vSVA), by vPASID. */
import { IommuError, type AddressSpace, type DmaBuffer, type UserAddressSpace } from 'iommufd';
import { channelCommand, COMMAND_BYTES, IA32_PASID_VALID, OPERATION_FILL, type Machine } from 'iommufd/sim';
import { EngineDriver } from '../engine';
import { GuestTable } from './guest-table';
import { hex, type Flow, type Stage } from './stage';

const GPA = 0x10_0000n;
const TABLE = 2;
const GVA = 0x7000_0000n;
const GPASID1 = 5;
const GPASID2 = 7;
const HELLO = new TextEncoder().encode('from a device, for a process of the guest');
/** Where the guest has the portal of its ENQCMD device, and the region it is. */
const PORTAL = 0xfe00_0000;
const PORTAL_REGION = 2;
const PATTERN = 0x4a4b4c4d;

export const flow45: Flow = {
  section: '4.5',
  title: 'guest SVA',
  async run(stage) {
    if (stage.machine) await onVtd(stage, stage.machine);
    else onMock(stage);
  },
};

async function onVtd(stage: Stage, machine: Machine): Promise<void> {
  const { iommu, step, check } = stage;
  step('bind device 1, whose PASID table the kernel owns; gpa_ioasid as a parent; map guest memory');
  const engine = EngineDriver.open(iommu, 1n);
  const gpa = iommu.createAddressSpace({ nestParent: true, pasid: true });
  engine.device.attach(gpa);
  const memory = iommu.allocateDma(8 * 4096);
  gpa.map(memory, { iova: GPA });

  const table = new GuestTable(memory, TABLE, GPA + BigInt(TABLE * 4096));
  table.set(GVA, GPA);
  step(
    `a process of the guest has its page table at GPA ${hex(table.gpa)}: allocate gva_ioasid, user-managed`,
  );
  const pageTable = { address: table.gpa, width: 48 } as const;
  const gva = iommu.createAddressSpace({ owner: 'user', parent: gpa, pageTable, pasid: true });
  step(`attach device 1 to gva_ioasid with vPASID ${GPASID1}`);
  engine.device.attach(gva, { pasid: GPASID1 });
  check(await engine.write(GVA, HELLO, { pasid: GPASID1 }), 'the device writes at an address of the process');
  check(Buffer.from(memory.bytes.subarray(0, HELLO.length)).equals(HELLO), 'the bytes are in guest memory');

  refuseDelegated(stage, gpa);
  enqcmd(stage, machine, gva, memory);
}

/** The delegated variant: one IOASID for the user's whole PASID table, as Arm and AMD have it. */
function refuseDelegated({ iommu, step, check }: Stage, parent: AddressSpace): void {
  step('a PASID table owned by the user: allocate gva_ioasid for it');
  try {
    iommu.createAddressSpace({ owner: 'user', parent, pasidTable: { ste: [1n, 0n] } });
    check(false, 'this IOMMU has such tables');
  } catch (error) {
    if (!(error instanceof IommuError)) throw error;
    check(error.code === 'EOPNOTSUPP', 'this IOMMU has none: EOPNOTSUPP, and nothing was made');
  }
}

/** A device whose commands carry the PASID of the processor: the processor has to translate it. */
function enqcmd(
  { iommu, step, check }: Stage,
  machine: Machine,
  gva: UserAddressSpace,
  memory: DmaBuffer,
): void {
  step('device 2 is a mediated one that takes ENQCMD: make it, bind it, and put it into the virtual machine');
  const { uuid } = iommu.createMdev({ parent: '0000:00:08.0', type: 'channel-engine-enqcmd' });
  const device = iommu.bind(uuid, { cookie: 2n });
  device.enableBusMaster();
  const hardware = machine.createVm();
  const vm = iommu.openVm(hardware.fd);
  vm.addDevice(device);
  check(
    device.info().pasid?.cpuVirt === true,
    'PASID_CPU_VIRT: its vPASIDs need translation by the processor',
  );

  step(`the same process uses it: attach device 2 to gva_ioasid with vPASID ${GPASID2}`);
  device.attach(gva, { pasid: GPASID2 });

  step(`KVM_MAP_PASID {gPASID ${GPASID2}, iommu_fd, gva_ioasid}`);
  vm.enablePasidTranslation();
  vm.mapPasid(GPASID2, gva);
  if (hardware.mapRegion(PORTAL, device.fd, PORTAL_REGION) < 0)
    throw new Error('the portal cannot be mapped');

  step('the guest sends a command with ENQCMD');
  hardware.vcpu.ia32Pasid = (IA32_PASID_VALID | GPASID2) >>> 0;
  check(hardware.vcpu.enqcmd(PORTAL, fillCommand()).kind === 'done', 'the device has taken it');
  machine.idle();
  check(memory.bytes[0] === (PATTERN & 0xff), 'and written into the memory of the process');

  step(`KVM_UNMAP_PASID {gPASID ${GPASID2}}`);
  vm.unmapPasid(GPASID2);
  check(hardware.vcpu.enqcmd(PORTAL, fillCommand()).kind === 'exit', 'the next ENQCMD leaves the guest');
}

function fillCommand(): Uint8Array {
  const bytes = new Uint8Array(COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(channelCommand.CONTROL, OPERATION_FILL, true);
  view.setBigUint64(channelCommand.DESTINATION, GVA, true);
  view.setUint32(channelCommand.LENGTH, 16, true);
  view.setUint32(channelCommand.PATTERN, PATTERN, true);
  return bytes;
}

/** The kernel's mock IOMMU: the attach with a vPASID, and what mainline has not. */
function onMock(stage: Stage): void {
  const { iommu, step, check } = stage;
  step('bind device 1 (of the mock IOMMU); gpa_ioasid as a parent; attach');
  const device = iommu.createMockDevice({ cookie: 1n, pasid: true });
  const gpa = iommu.createAddressSpace({ nestParent: true, pasid: true });
  device.attach(gpa);
  step('a process of the guest has a page table: allocate gva_ioasid, user-managed');
  const pageTable = { type: 0xdead, bytes: Uint8Array.of(0xef, 0xbe, 0xad, 0xde) };
  const gva = iommu.createAddressSpace({ owner: 'user', parent: gpa, pageTable, pasid: true });
  step(`attach device 1 to gva_ioasid with vPASID ${GPASID1}`);
  device.attach(gva, { pasid: GPASID1 });
  check(device.attached(GPASID1) === gva, `vPASID ${GPASID1} goes through the process's table`);
  refuseDelegated(stage, gpa);
}
