import { parseOptions, UsageError, type VmOptions } from '../../scripts/vm/options';

function parsed(...args: string[]): VmOptions {
  const options = parseOptions(args);
  if (options === 'help') throw new Error('help was not asked for');
  return options;
}

describe('the command line of npm run vm', () => {
  it('has defaults for everything but the command', () => {
    expect(parsed('true')).toEqual({
      memory: '4G',
      cpus: 2,
      qemu: undefined,
      iommu: 'intel',
      interruptRemapping: true,
      accel: 'tcg',
      kernel: undefined,
      append: '',
      devices: [],
      modules: [],
      shares: [],
      bind: true,
      nvme: false,
      user: 0,
      dumpTables: undefined,
      timeout: 600,
      verbose: false,
      json: false,
      command: ['true'],
    });
  });

  it('takes every option', () => {
    const words =
      '--memory 512M --cpus 1 --qemu /q --iommu virtio --accel kvm --kernel /k --append=a=b --device one ' +
      '--device two,x=y --module mdev --module mtty --share /a --share=/b --dump-tables t.json --no-bind --nvme ' +
      '--no-interrupt-remapping --user 1000 --timeout 0 --verbose --json';
    expect(parsed(...words.split(' '), 'true')).toEqual({
      memory: '512M',
      cpus: 1,
      qemu: '/q',
      iommu: 'virtio',
      interruptRemapping: false,
      accel: 'kvm',
      kernel: '/k',
      append: 'a=b',
      devices: ['one', 'two,x=y'],
      modules: ['mdev', 'mtty'],
      shares: ['/a', '/b'],
      bind: false,
      nvme: true,
      user: 1000,
      dumpTables: 't.json',
      timeout: 0,
      verbose: true,
      json: true,
      command: ['true'],
    });
  });

  it('leaves what follows the first word that is no option to the command', () => {
    const command = ['npm', 'run', '-s', 'demo', '--', '--json', '--verbose', '--memory', '1'];
    expect(parsed('--cpus', '3', ...command)).toMatchObject({
      cpus: 3,
      memory: '4G',
      verbose: false,
      command,
    });
  });

  it('leaves what follows -- to the command', () => {
    expect(parsed('--verbose', '--', '--help', '--', '')).toMatchObject({
      verbose: true,
      command: ['--help', '--', ''],
    });
  });

  it('gives help when asked before the command only', () => {
    expect(parseOptions(['--help'])).toBe('help');
    expect(parseOptions(['--verbose', '--help', 'ls'])).toBe('help');
    expect(parsed('ls', '--help').command).toEqual(['ls', '--help']);
  });

  it.each([
    [[], /no command/],
    [['--verbose'], /no command/],
    [['--'], /no command/],
    [['--nonsense', 'true'], /--nonsense/],
    [['-x', 'true'], /-x/],
    [['--memory'], /--memory/],
    [['--memory', '4', 'true'], /--memory is a size such as/],
    [['--memory', '0G', 'true'], /--memory is a size such as/],
    [['--memory', '4G,x', 'true'], /--memory is a size such as/],
    [['--cpus', '0', 'true'], /--cpus is a whole number from 1 to 255/],
    [['--cpus', '256', 'true'], /--cpus is a whole number/],
    [['--cpus', '1.5', 'true'], /--cpus is a whole number/],
    [['--iommu', 'smmu', 'true'], /--iommu is one of intel, virtio, amd, none, not 'smmu'/],
    [['--accel', 'hvf', 'true'], /--accel is one of tcg, kvm, icount, not 'hvf'/],
    [['--timeout', '-1', 'true'], /--timeout/],
    [['--timeout', '2147484', 'true'], /--timeout is a whole number from 0 to 2147483/],
    [['--user', 'root', 'true'], /--user is a whole number from 0 to 65534/],
    [['--verbose=yes', 'true'], /--verbose/],
  ])('refuses %j', (args, message) => {
    const parse = () => parseOptions(args);
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(message);
  });
});
