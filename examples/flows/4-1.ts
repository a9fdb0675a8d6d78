/** RFC, section 4.1: one device in one address space; a second one shares it. */
import { EduDriver } from '../drivers/edu/driver';
import { hex, type Flow } from './stage';

const COOKIE_1 = 0x1n;
const COOKIE_2 = 0x2n;
const GPA = 0x10_0000n;
const BYTES = 1024;

export const flow41: Flow = {
  section: '4.1',
  title: 'a simple example',
  async run({ iommu, step, check }) {
    step(`bind device 1 to the IOMMU file, with cookie ${hex(COOKIE_1)}`);
    const first = EduDriver.open(iommu, COOKIE_1);
    check(iommu.deviceInfo(COOKIE_1).cookie === COOKIE_1, 'the cookie names the device');

    step('allocate gpa_ioasid, and attach device 1 to it');
    const gpa = iommu.createAddressSpace();
    first.device.attach(gpa);

    step(`map guest memory: GPA ${hex(GPA)} to the program's own addresses`);
    const memory = iommu.allocateDma(2 * 4096);
    gpa.map(memory, { iova: GPA });
    memory.bytes.fill(0x41, 0, BYTES);
    await first.fetch(GPA, BYTES);
    await first.store(GPA + 4096n, BYTES);
    check(memory.bytes[4096 + BYTES - 1] === 0x41, 'device 1 has read and written guest memory by its GPA');

    step(`bind device 2, with cookie ${hex(COOKIE_2)}, and attach it to the same gpa_ioasid`);
    const second = EduDriver.open(iommu, COOKIE_2, 1);
    second.device.attach(gpa);
    memory.bytes.fill(0);
    await first.store(GPA, BYTES);
    await second.fetch(GPA, BYTES);
    await second.store(GPA + 4096n, BYTES);
    check(memory.bytes[4096] === 0x41, 'device 2 has read what device 1 wrote: the mapping was made once');
  },
};
