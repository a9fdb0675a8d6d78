import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import {
  cacheFolder,
  findKernel,
  findModuleFiles,
  findModules,
  findQemu,
  SetupError,
} from '../../scripts/vm/find';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iommufd-find-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function file(path: string, mode = 0o644): string {
  const full = join(folder, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, '');
  chmodSync(full, mode);
  return full;
}

describe('QEMU', () => {
  it('is the first on PATH', () => {
    const first = file('a/qemu-system-x86_64', 0o755);
    file('b/qemu-system-x86_64', 0o755);
    const path = [join(folder, 'none'), join(folder, 'a'), join(folder, 'b')].join(':');
    expect(findQemu(undefined, { PATH: path })).toBe(first);
  });

  it('is the one asked for, by path or by name', () => {
    const mine = file('bin/my-qemu', 0o755);
    expect(findQemu(mine, { PATH: '' })).toBe(mine);
    expect(findQemu('my-qemu', { PATH: join(folder, 'bin') })).toBe(mine);
  });

  it('is missed with the command that installs it', () => {
    const plain = file('bin/qemu-system-x86_64');
    for (const find of [
      () => findQemu(undefined, { PATH: folder }),
      () => findQemu(undefined, {}),
      // Neither a file that is not a program nor a folder is one.
      () => findQemu(undefined, { PATH: dirname(plain) }),
      () => findQemu(folder, {}),
      () => findQemu(join(folder, 'none'), {}),
    ]) {
      expect(find).toThrow(SetupError);
      expect(find).toThrow('apt-get install --no-install-recommends qemu-system-x86');
    }
  });
});

describe('the guest kernel', () => {
  it('is the one asked for, then the one of IOMMUFD_VM_KERNEL, then the newest built', () => {
    const asked = file('asked');
    const named = file('named');
    file('cache/iommufd/linux-7.9.9/bzImage');
    const newest = file('cache/iommufd/linux-7.10.1/bzImage');
    // An unfinished build.
    file('cache/iommufd/linux-8.0.0/.config');
    const environment = { IOMMUFD_VM_KERNEL: named, XDG_CACHE_HOME: join(folder, 'cache') };
    expect(findKernel(asked, environment)).toBe(asked);
    expect(findKernel(undefined, environment)).toBe(named);
    expect(findKernel(undefined, { ...environment, IOMMUFD_VM_KERNEL: '' })).toBe(newest);
  });

  it('is missed with the command that builds it', () => {
    const environment = { HOME: folder };
    for (const find of [
      () => findKernel(undefined, environment),
      () => findKernel(join(folder, 'none'), environment),
      () => findKernel(undefined, { ...environment, IOMMUFD_VM_KERNEL: join(folder, 'none') }),
    ]) {
      expect(find).toThrow(SetupError);
      expect(find).toThrow('scripts/vm/kernel');
    }
  });

  it('is cached where the user caches', () => {
    expect(cacheFolder({ HOME: '/h', XDG_CACHE_HOME: '/c' })).toBe('/c/iommufd');
    expect(cacheFolder({ HOME: '/h', XDG_CACHE_HOME: '' })).toBe('/h/.cache/iommufd');
  });

  it('has its modules beside it, or none', () => {
    const image = file('linux-7.3.4/bzImage');
    expect(findModules(image)).toBeUndefined();
    file('linux-7.3.4/modules/mdev.ko');
    expect(findModules(image)).toBe(join(folder, 'linux-7.3.4/modules'));
    expect(findModuleFiles(image, ['mdev'])).toEqual([join(folder, 'linux-7.3.4/modules/mdev.ko')]);
    expect(() => findModuleFiles(image, ['mdev', 'mtty'])).toThrow(SetupError);
    expect(() => findModuleFiles(image, ['mdev', 'mtty'])).toThrow('modules/mtty.ko');
  });
});
