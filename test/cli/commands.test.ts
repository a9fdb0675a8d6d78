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
    for (const [args, message] of [
      [[], 'which command?'],
      [['--jsn'], 'which command?'],
      [['doktor'], "there is no command 'doktor'"],
      [['toString'], "there is no command 'toString'"],
    ] as const) {
      expect(run(args)).toEqual({ status: 2, stdout: '', stderr: `${message}\n\n${stdout}` });
      const error = { message, hint: 'iommufd --help says what there is' };
      expect(json([...args, '--json'])).toEqual({ status: 2, value: { error } });
    }
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
    ['demo', '--bogus'],
    ['demo', 'extra'],
    ['build', 'extra'],
    ['graph'],
  ])('%s %s: arguments that make no sense give the usage', (...args) => {
    const { status, stdout, stderr } = run(args);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`usage: iommufd ${args[0]} `);
    const [message] = stderr.split('\n');
    const error = { message, hint: `iommufd ${args[0]} --help says what there is` };
    // In the first place: after '--bogus', it might be that option's value.
    const [name, ...rest] = args;
    expect(json([name, '--json', ...rest])).toEqual({ status: 2, value: { error } });
  });

  test.each([
    ['vm', 'no command to run in the guest: see --help'],
    ['vm --bogus', "Unknown option '--bogus'"],
    ['vm --timeout x true', "--timeout is a whole number from 0 to 2147483, not 'x'"],
    ['vm --iommu smmu true', "--iommu is one of intel, virtio, amd, none, not 'smmu'"],
  ])('%s: arguments that make no sense are said', (words, message) => {
    const [name, ...args] = words.split(' ');
    expect(run([name, ...args])).toEqual({ status: 2, stdout: '', stderr: `vm: ${message}\n` });
    expect(json([name, '--json', ...args])).toEqual({ status: 2, value: { error: { message } } });
  });

  test('what follows -- is no option: --json there is a DEVICE', () => {
    const { status, stdout, stderr } = run(['doctor', '--', '--json']);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain("'--json' is no PCI address");
    const command = run(['vm', '--bogus', 'true', '--json']);
    expect(command).toMatchObject({ status: 2, stdout: '' });
  });

  test.each([
    '--help',
    'devices',
    'doctor --json',
    'demo',
    'vm --help',
    'vm --json --bogus',
    'doktor --json',
  ])('%s ends without a stack when nobody reads its output', (words) => {
    const program = [process.execPath, join(ROOT, bin.iommufd), ...words.split(' ')].join(' ');
    // Its reader has ended before it starts.
    const script = `exec 4> >(exec true); wait $!; { ${program} 2>&3; echo $? >&3; } 3>&1 >&4 | cat`;
    const { stdout } = spawnSync('bash', ['-c', script], {
      encoding: 'utf8',
      env: { ...process.env, IOMMUFD_BACKEND: 'simulated' },
    });
    expect(stdout).toBe('141\n');
  });
});

describe('on the simulated machine', () => {
  test('iommufd doctor finds no problem', () => {
    expect(json(['doctor', '--json'])).toMatchObject({ status: 0, value: { ok: true } });
    const { status, stdout, stderr } = run(['doctor', '00:04.0']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    // One that is named twice is looked at once.
    expect(run(['doctor', '00:04.0', '0000:00:04.0'])).toEqual({ status, stdout, stderr });
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

  test('iommufd demo says to programs what is refused', () => {
    const { status, stdout, stderr } = run(['demo', '--json'], { IOMMUFD_BACKEND: 'lunar' });
    expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({ error: { message: expect.stringContaining('lunar') as string } });
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
      stderr: expect.stringMatching(/^iommufd: 'eth0' is no PCI address such as 0000:00:04.0\n$/),
    });
  });

  test.each(['doctor', 'devices', 'bind 00:04.0'])('with IOMMUFD_BACKEND is said by %s', (words) => {
    const args = words.split(' ');
    const environment = { IOMMUFD_BACKEND: 'lunar' };
    const message = "IOMMUFD_BACKEND is 'lunar': it must be one of auto, linux, simulated";
    expect(run(args, environment)).toEqual({ status: 2, stdout: '', stderr: `iommufd: ${message}\n` });
    const { status, stdout } = run([...args, '--json'], environment);
    expect([status, JSON.parse(stdout)]).toEqual([2, { error: { message } }]);
  });

  test('with a virtual machine is said, and where what it takes is to be had', () => {
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
