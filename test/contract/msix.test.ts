/** MSI-X of an NVMe controller, simulated and QEMU's: several vectors, each with its own mask and count. */
import { Iommu } from '../../lib';
import { Machine, NvmeController } from '../../lib/sim';
import { giveTo, NVME } from './nvme';
import { backend, errorOf, sleep, until } from './support';

if (backend === 'linux') {
  beforeAll(() => giveTo('vfio-pci'));
  afterAll(() => giveTo('\n'));
}

const opened: Iommu[] = [];
afterEach(() => {
  for (const iommu of opened.splice(0)) iommu.close();
});

function openNvme() {
  const iommu = Iommu.open({
    backend: backend === 'linux' ? backend : new Machine({ devices: { [NVME]: new NvmeController() } }),
  });
  opened.push(iommu);
  return iommu.bind(NVME, { cookie: 5n });
}

test('vectors are apart: one is masked and counts, the others deliver', async () => {
  const device = openNvme();
  expect(device.interruptVectors('msix')).toBeGreaterThanOrEqual(4);
  const vectors = [0, 3, 1].map((vector) => device.interrupt('msix', vector));
  const heard = vectors.map(() => 0);
  vectors.forEach((interrupt, i) => interrupt.on('interrupt', (count) => (heard[i] += count)));
  const [first, masked, last] = vectors;
  masked.mask();
  for (let i = 0; i < 5; i++) masked.trigger();
  first.trigger();
  last.trigger();
  last.trigger();
  await until(() => heard[0] === 1 && heard[2] === 2);
  await sleep(20);
  expect(heard).toEqual([1, 0, 2]);
  masked.unmask();
  await until(() => heard[1] === 5);
  expect(vectors.map(({ total }) => total)).toEqual([1, 5, 2]);
});

test('a vector that is closed leaves the others, and can be opened again', async () => {
  const device = openNvme();
  const kept = device.interrupt('msix', 0);
  const other = device.interrupt('msix', 2);
  expect(errorOf(() => device.interrupt('msix', 2))).toMatchObject({ code: 'EBUSY' });
  other.trigger();
  expect(await other.next()).toBe(1);
  other.close();
  expect(errorOf(() => other.trigger())).toMatchObject({ code: 'EBADF' });
  kept.trigger();
  expect(await kept.next()).toBe(1);
  const again = device.interrupt('msix', 2);
  again.mask();
  again.trigger();
  again.trigger();
  expect([again.take(), again.take()]).toEqual([2, 0]);
  kept.close();
  again.unmask();
  again.trigger();
  expect(await again.next()).toBe(1);
});

test('MSI-X and INTx exclude each other', () => {
  const device = openNvme();
  const msix = device.interrupt('msix', 0);
  expect(errorOf(() => device.interrupt('intx'))).toMatchObject({ request: 'VFIO_DEVICE_SET_IRQS' });
  msix.close();
  device.interrupt('intx').close();
});
