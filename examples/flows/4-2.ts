/** RFC, section 4.2: two address spaces without nesting; the user shadows GIOVA to its own addresses. */
import { EduDriver } from '../drivers/edu/driver';
import { hex, type Flow } from './stage';

const GPA = 0x10_0000n;
const GIOVA = 0x4000_0000n;
const BYTES = 512;

export const flow42: Flow = {
  section: '4.2',
  title: 'several address spaces, without nesting',
  async run({ iommu, step, check }) {
    step('bind devices 1 and 2; allocate gpa_ioasid; attach both: the guest has just booted');
    const first = EduDriver.open(iommu, 1n);
    const second = EduDriver.open(iommu, 2n, 1);
    const gpa = iommu.createAddressSpace();
    first.device.attach(gpa);
    second.device.attach(gpa);
    const memory = iommu.allocateDma(4 * 4096);
    gpa.map(memory, { iova: GPA });

    step('the guest puts device 2 behind its vIOMMU: allocate giova_ioasid, and move device 2 there');
    const giova = iommu.createAddressSpace();
    second.device.attach(giova, { replace: true });

    step(
      `the guest maps GIOVA ${hex(GIOVA)} to GPA ${hex(GPA + 0x2000n)}: the user maps GIOVA to its own address of that`,
    );
    giova.map(memory, { iova: GIOVA, offset: 0x2000, length: 4096 });

    memory.bytes.fill(0x42, 0x2000, 0x2000 + BYTES);
    await second.fetch(GIOVA, BYTES);
    await first.fetch(GPA + 0x2000n, BYTES);
    await first.store(GPA, BYTES);
    await second.store(GIOVA + 1024n, BYTES);
    check(
      memory.bytes[0] === 0x42 && memory.bytes[0x2000 + 1024] === 0x42,
      'both reach the page, each by its own address',
    );
    memory.bytes.fill(0, 0, BYTES);
    await second.store(GPA, BYTES);
    check(memory.bytes[0] === 0, `device 2 reaches nothing at GPA ${hex(GPA)} any more`);
  },
};
