/** No-snoop DMA: what Linux does by itself, and what it has no request for. */
import type { IommuError } from '../../lib';
import { backend, errorOf, openEdu } from './support';

const linux = backend === 'linux';

test('snooping is enforced where the IOMMU can, and a space that insists takes no other device', () => {
  const { iommu, device } = openEdu();
  const can = iommu.deviceInfo(device.cookie).enforceSnoop;
  expect(typeof can).toBe('boolean');
  device.attach(iommu.createAddressSpace({ enforceSnoop: 'auto' }));
  const enforcing = iommu.createAddressSpace({ enforceSnoop: 'enable' });
  const attach = () => device.attach(enforcing, { replace: true });
  if (can) attach();
  else expect(errorOf(attach)).toMatchObject({ code: 'EINVAL' });
  expect(enforcing.attachments).toHaveLength(can ? 1 : 0);
});

/** Asks for what only the RFC has: EOPNOTSUPP with the feature's name on Linux. */
function onlyProposed(feature: string, ask: () => unknown): void {
  if (!linux) {
    ask();
    return;
  }
  const error = errorOf(ask) as IommuError;
  expect(error).toMatchObject({ code: 'EOPNOTSUPP', errno: -95 });
  expect(error.message).toContain(feature);
  expect(error.message).toContain('the RFC has it, Linux');
  expect(error.hint).toBeDefined();
}

test('a space that does not enforce it is the RFC’s alone', () => {
  const { iommu } = openEdu();
  const one = iommu.createAddressSpace();
  onlyProposed('address spaces that do not enforce snooping', () =>
    iommu.createAddressSpace({ enforceSnoop: 'disable' }),
  );
  // What is refused leaves nothing behind: numbers go on as before.
  one.close();
  expect(iommu.createAddressSpace().ioasId).toBe(one.ioasId);
});

test('the hint at attach is too, and nothing is attached', () => {
  const { iommu, device } = openEdu();
  const space = iommu.createAddressSpace();
  onlyProposed('saying whether a device uses no-snoop DMA', () => device.attach(space, { noSnoop: false }));
  expect(space.attachments).toHaveLength(linux ? 0 : 1);
});

test('and so is the query for KVM, and its notification', () => {
  const { iommu } = openEdu();
  onlyProposed('query for no-snoop DMA', () => expect(iommu.needsNoSnoop()).toBe(false));
  onlyProposed('query for no-snoop DMA', () => iommu.watchNoSnoop());
  expect(iommu.checkExtension('EXT_DMA_NO_SNOOP')).toBe(!linux);
});
