/** RFC, section 4.3: nesting in software. The child maps GIOVA to GPA; what both tables come to is kept below the API. */
import { EduDriver } from '../drivers/edu/driver';
import { hex, type Flow } from './stage';

const GPA = 0x10_0000n;
const GIOVA = 0x4000_0000n;
const BYTES = 512;

export const flow43: Flow = {
  section: '4.3',
  title: 'nesting in software',
  async run({ iommu, step, check }) {
    step('bind devices 1 and 2; allocate gpa_ioasid; attach both; map guest memory');
    const first = EduDriver.open(iommu, 1n);
    const second = EduDriver.open(iommu, 2n, 1);
    const gpa = iommu.createAddressSpace();
    first.device.attach(gpa);
    second.device.attach(gpa);
    const memory = iommu.allocateDma(4 * 4096);
    gpa.map(memory, { iova: GPA });

    step(
      'the guest puts device 2 behind its vIOMMU: allocate giova_ioasid on gpa_ioasid, and move device 2 there',
    );
    const giova = iommu.createAddressSpace({ parent: gpa });
    second.device.attach(giova, { replace: true });

    step(`map GIOVA ${hex(GIOVA)} to GPA ${hex(GPA + 0x1000n)}: no address of the program's own is needed`);
    const mapping = giova.map({ iova: GPA + 0x1000n, length: 4096 }, { iova: GIOVA });
    memory.bytes.fill(0x43, 0x1000, 0x1000 + BYTES);
    await second.fetch(GIOVA, BYTES);
    await second.store(GIOVA + 2048n, BYTES);
    check(memory.bytes[0x1000 + 2048] === 0x43, 'device 2 reaches guest memory through both');
    check(
      giova.shadow.length === 1,
      `the shadow has ${giova.shadow.length} piece, and no memory is pinned twice`,
    );

    step('the guest unmaps it');
    mapping.unmap();
    memory.bytes.fill(0, 0x1000, 0x1000 + BYTES);
    await second.store(GIOVA, BYTES);
    check(memory.bytes[0x1000] === 0, 'device 2 reaches nothing there any more');
  },
};
