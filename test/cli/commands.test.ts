/** Every command of `iommufd`, as a program: its help, its output for programs, its exit status. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');
const { bin } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { bin: { iommufd: string } };
const COMMANDS = ['doctor', 'devices', 'bind', 'unbind', 'build', 'vm', 'graph', 'demo'];

function run(args: readonly string[], environment: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, bin.iommufd), ...args], {
    encoding: 'utf8',
    env: { ...process.env, IOMMUFD_BACKEND: 'simulated', ...environment },
  });
  return { status, stdout, stderr };
}

function json(args: readonly string[]): { status: number | null; value: unknown } {
  const { status, stdout, stderr } = run(args);
  expect(stderr).toBe('');
  return { status, value: JSON.parse(stdout) };
}

describe('iommufd', () => {
  test('lists its commands when asked, and when it cannot tell what is wanted', () => {
    const { stdout } = run(['--help']);
    for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${name} `, 'm'));
    expect(run(['-h'])).toEqual({ status: 0, stdout, stderr: '' });
    for (const args of [[], ['doktor'], ['toString'], ['--json']])
      expect(run(args)).toEqual({ status: 2, stdout: '', stderr: stdout });
  });

  test.each(COMMANDS)('%s says how it is used, for programs too', (name) => {
    const { status, stdout, stderr } = run([name, '--help']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^usage: iommufd ${name} `, 'i'));
    expect(stdout).toContain('--json');
    expect(stdout).toContain('Exit status: ');
  });

  test.each([
    ['doctor', '--jsn'],
    ['devices', 'all'],
    ['bind'],
    ['bind', '00:04.0', '00:05.0'],
    ['unbind', '--forced', '00:04.0'],
  ])('%s %s: arguments that make no sense give the usage', (...args) => {
    const { status, stdout, stderr } = run(args);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`usage: iommufd ${args[0]} `);
  });
});

describe('on the simulated machine', () => {
  test('iommufd doctor finds no problem', () => {
    expect(json(['doctor', '--json'])).toMatchObject({ status: 0, value: { ok: true } });
    expect(run(['doctor', '00:04.0'])).toMatchObject({ status: 0, stderr: '' });
  });

  test('iommufd devices lists two', () => {
    const edu = {
      ...{
        bdf: '0000:00:04.0',
        vendorId: '0x1234',
        deviceId: '0x11e8',
        classCode: '0x00ff00',
        class: 'other',
      },
      ...{ driver: 'vfio-pci', iommuGroup: 0, iommu: 'dmar0', path: '/dev/vfio/devices/vfio0', uses: [] },
    };
    const { status, value } = json(['devices', '--json']);
    expect([status, (value as unknown[]).length]).toEqual([0, 2]);
    expect(value).toContainEqual(edu);
    const lines = run(['devices']).stdout.split('\n');
    expect(lines[0]).toMatch(/^ADDRESS +ID +CLASS +DRIVER +GROUP +IOMMU +FILE/);
    expect(lines[1]).toMatch(
      /^0000:00:04.0 +1234:11e8 +other +vfio-pci +0 +dmar0 +\/dev\/vfio\/devices\/vfio0$/,
    );
  });

  test.each(['bind', 'unbind'])('iommufd %s has nothing to do, and says so', (name) => {
    const error = { code: 'EOPNOTSUPP', reason: expect.stringContaining('simulated') as string };
    expect(json([name, '--json', '00:04.0'])).toMatchObject({ status: 1, value: { error } });
    const { status, stdout, stderr } = run([name, '00:04.0']);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^iommufd: the simulated machine .*\n {2}leave IOMMUFD_BACKEND out/);
  });

  test('iommufd demo works', () => {
    const { status, value } = json(['demo', '--json']);
    expect(status).toBe(0);
    expect(value).toMatchObject({ backend: 'simulated', dma: { verified: true, blockedOutside: true } });
  });
});

describe('what is wrong', () => {
  test('with an address is said, to programs as JSON', () => {
    expect(json(['doctor', '--json', '00:19.0'])).toMatchObject({
      status: 1,
      value: { error: { code: 'ENODEV', reason: 'there is no PCI device 0000:00:19.0' } },
    });
    expect(run(['doctor', 'eth0'])).toMatchObject({
      status: 2,
      stdout: '',
      stderr: expect.stringMatching(/^iommufd: 'eth0' is neither a PCI address/),
    });
  });

  test('with a virtual machine is said, and where what it takes is to be had', () => {
    expect(run(['vm', '--iommu', 'smmu', 'true'])).toMatchObject({
      status: 125,
      stderr: expect.stringContaining('--iommu is one of'),
    });
    const missing = run(['vm', '--kernel', '/nowhere', 'true']);
    expect(missing).toMatchObject({ status: 125, stdout: '' });
    expect(missing.stderr).toMatch(/QEMU not found|scripts\/vm\/kernel$/m);
    const { status, value } = json(['vm', '--json', '--kernel', '/nowhere', 'true']);
    expect([status, value]).toEqual([
      125,
      { error: { message: missing.stderr.slice('vm: '.length).trim() } },
    ]);
  });
});
