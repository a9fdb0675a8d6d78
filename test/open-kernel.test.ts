import { existsSync } from 'node:fs';
import { Iommu } from '../lib';
import { chooseBackend, openKernel, type Backend } from '../lib/open-kernel';
import { Machine } from '../lib/sim';
import { errorOf } from './contract/support';
import { ScriptedKernel } from './scripted-kernel';

const saved = process.env['IOMMUFD_BACKEND'];

afterEach(() => {
  if (saved === undefined) delete process.env['IOMMUFD_BACKEND'];
  else process.env['IOMMUFD_BACKEND'] = saved;
});

function open(backend?: Backend) {
  const { kernel, fd, ...rest } = chooseBackend(backend);
  kernel.close(fd);
  return rest;
}

describe('choosing a backend', () => {
  test('by name, by environment', () => {
    expect(open('simulated')).toEqual({ backend: 'simulated', reason: 'the program asks for it' });
    process.env['IOMMUFD_BACKEND'] = 'simulated';
    expect(open()).toEqual({ backend: 'simulated', reason: 'IOMMUFD_BACKEND asks for it' });
    expect(Iommu.open().reason).toBe('IOMMUFD_BACKEND asks for it');
  });

  test('auto: Linux where /dev/iommu is, the simulation where it is not, and says why', () => {
    const { backend, reason } = open('auto');
    if (existsSync('/dev/iommu')) expect([backend, reason]).toEqual(['linux', '/dev/iommu is there']);
    else {
      expect(backend).toBe('simulated');
      expect(reason).toMatch(
        /^(this machine has no \/dev\/iommu \(ENOENT\)|the native addon .*|.* is not Linux)/,
      );
    }
    delete process.env['IOMMUFD_BACKEND'];
    expect(open()).toEqual({ backend, reason });
    process.env['IOMMUFD_BACKEND'] = '';
    expect(open()).toEqual({ backend, reason });
  });

  test('linux without /dev/iommu or addon is an error with the next step', () => {
    if (existsSync('/dev/iommu')) {
      expect(open('linux').backend).toBe('linux');
      return;
    }
    const error = errorOf(() => open('linux'));
    expect(error).toMatchObject({ syscall: 'open', path: '/dev/iommu', hint: expect.any(String) });
    expect(['ENOENT', 'ENOSYS']).toContain((error as { code: string }).code);
  });

  test('machines and kernels are recognised', () => {
    const machine = new Machine();
    expect(open(machine)).toEqual({ backend: 'simulated', reason: 'the program passed this machine' });
    expect(open(machine.process()).reason).toBe('the program passed this kernel');
    expect(openKernel(machine).backend).toBe('simulated');
    const scripted = new ScriptedKernel();
    scripted.files.set('/dev/iommu', 5);
    expect(chooseBackend(scripted)).toMatchObject({ kernel: scripted, fd: 5 });
  });

  test('two programs in one process see one simulated machine, as they see one Linux', () => {
    expect(openKernel('simulated')).toBe(openKernel('simulated'));
    const [one, two] = [Iommu.open({ backend: 'simulated' }), Iommu.open({ backend: 'simulated' })];
    one.bind('0000:00:04.0', { cookie: 1 });
    expect(() => two.bind('0000:00:04.0', { cookie: 1 })).toThrow('EINVAL');
    one.close();
    two.close();
  });

  test('nonsense is a TypeError that names what is allowed', () => {
    process.env['IOMMUFD_BACKEND'] = 'qemu';
    expect(() => open()).toThrow(
      new TypeError("IOMMUFD_BACKEND is 'qemu': it must be one of auto, linux, simulated"),
    );
    expect(open('simulated').backend).toBe('simulated');
    for (const backend of ['real', 5, {}, null]) {
      expect(() => open(backend as Backend)).toThrow(TypeError);
      expect(() => openKernel(backend as 'linux')).toThrow(TypeError);
    }
  });
});
