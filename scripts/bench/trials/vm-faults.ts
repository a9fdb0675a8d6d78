/**
 * Trial, in the VM: page faults of the kernel's mock device, taken from the ring with drain(callback) and answered
 * 'success', a burst at a time. Arguments: milliseconds.
 *
 * That the device is told to fault, by an ioctl for each, is not timed: what is, begins with a kernel that holds the burst,
 * and ends when it has all the answers.
 */
import { Iommu, type FaultView } from '../../../lib';
import { CALL_STRUCTS_AT } from '../../../lib/kernel';
import * as uapi from '../../../lib/uapi';
import { measure, report } from './measure';

/** Peer: vm-faults.c has the same numbers. */
const BURST = 128;
const PAGE = 4096;
const FIRST_PAGE = 0x1000;
const COOKIE = 77;
/** Bursts of one before all: drain() itself is called once a burst, and the JIT would take long to notice. */
const WARM = 4000;

/** Raises a burst: calls that were written once, made in one crossing into the addon. */
function burstOf({ kernel, fd }: Iommu, deviceId: number): (count: number) => void {
  const { struct, request } = uapi.IOMMU_TEST_CMD;
  const page = kernel.callPage();
  const bytes = new Uint8Array(page.buffer);
  for (let i = 0; i < BURST; i++) {
    const fault = {
      dev_id: deviceId,
      pasid: 0,
      grpid: i,
      perm: uapi.IOMMU_PGFAULT_PERM_READ,
      addr: BigInt((FIRST_PAGE + i) * PAGE),
    };
    const values = { size: struct.size, op: uapi.IOMMU_TEST_OP_TRIGGER_IOPF, trigger_iopf: fault };
    const at = CALL_STRUCTS_AT + i * struct.size;
    bytes.set(struct.encode(values), at);
    page.describe(i, fd, request, at);
  }
  return (count) => {
    const raised = page.run(count);
    if (raised !== count) throw new Error(`fault ${raised} was not raised: ${page.result(raised)}`);
  };
}

async function main(): Promise<void> {
  using iommu = Iommu.open({ backend: 'linux' });
  const device = iommu.createMockDevice({ cookie: COOKIE });
  const queue = iommu.createFaultQueue();
  device.attach(iommu.createAddressSpace({ faults: queue }));
  const seen = { next: 0, pages: 0 };
  const answer = (fault: FaultView) => {
    const page = fault.addressHigh * 0x10_0000 + (fault.addressLow >>> 12);
    if (page !== seen.next || fault.cookieLow !== COOKIE) throw new Error(`page ${page}, not ${seen.next}`);
    seen.next++;
    seen.pages += page;
    fault.respond('success');
  };
  const drain = (count: number) => {
    seen.next = FIRST_PAGE;
    seen.pages = 0;
    const came = queue.drain(answer);
    if (came !== count) throw new Error(`${came} of ${count} faults came`);
  };
  const trigger = burstOf(iommu, device.id);
  for (let i = 0; i < WARM; i++) {
    trigger(1);
    drain(1);
  }
  const value = await measure({ calls: BURST, prepare: () => trigger(BURST) }, () => drain(BURST));
  if (queue.counters.refused > 0) throw new Error(`${queue.counters.refused} answers were refused`);
  report(value, seen.pages);
}

void main();
