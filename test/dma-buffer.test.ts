import { Iommu, type IommuError } from '../lib';
import { errorOf } from './contract/support';
import { ScriptedKernel } from './scripted-kernel';

test('what cannot be allocated is an error of mmap, and huge pages are named only where they were asked for', () => {
  const kernel = new ScriptedKernel();
  kernel.files.set('/dev/iommu', 5);
  const iommu = Iommu.open({ backend: kernel });
  const plain = errorOf(() => iommu.allocateDma(4096)) as IommuError;
  expect(plain).toMatchObject({ code: 'ENOMEM', syscall: 'mmap', hint: undefined });
  expect(plain.message).toBe('mmap: ENOMEM: cannot allocate memory');
  const huge = errorOf(() => iommu.allocateDma(4096, { hugePages: true })) as IommuError;
  expect(huge).toMatchObject({ code: 'ENOMEM', syscall: 'mmap' });
  expect(huge.hint).toContain('vm.nr_hugepages');
});
