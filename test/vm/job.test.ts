import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { jobMessage, jobScript, passedEnvironment, shellQuote, type Job } from '../../scripts/vm/job';
import { EDU_ADDRESSES, NVME_ADDRESS } from '../../scripts/vm/qemu';

const AWKWARD = [
  '',
  ' ',
  '--json',
  "it's",
  '"q"',
  '$HOME `id` \\',
  'a\nb\n',
  '*',
  '~',
  '!x',
  'ünï',
  '-n',
  ';:&|<>()',
];

function job(changes: Partial<Job> = {}): Job {
  return {
    options: { bind: false, nvme: false, shares: [], user: 0, command: ['true'] },
    folder: '/',
    environment: {},
    modules: [],
    marker: 'mark',
    ...changes,
  };
}

/** What a shell makes of a script: its positional parameters, then what is named, each ended by a NUL. */
function shell(script: string, ...named: string[]): string[] {
  const print = `printf '%s\\0' "$@" ${named.map((name) => `"$${name}"`).join(' ')}`;
  const { stdout, stderr } = spawnSync('sh', ['-c', `${script}${print}`], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
  expect(stderr).toBe('');
  return stdout.split('\0').slice(0, -1);
}

describe('the job for the guest', () => {
  it('brings the command through a shell as it is', () => {
    const script = jobScript(
      job({ options: { bind: false, nvme: false, shares: [], user: 0, command: ['cmd', ...AWKWARD] } }),
    );
    expect(shell(script)).toEqual(['cmd', ...AWKWARD]);
  });

  it('runs the command as the user asked for', () => {
    const script = jobScript(
      job({ options: { bind: false, nvme: false, shares: [], user: 12, command: ['id', '-u'] } }),
    );
    expect(shell(`chown() { :; }\n${script}`)).toEqual([
      ...['setpriv', '--reuid=12', '--regid=12', '--clear-groups', '--'],
      ...['id', '-u'],
    ]);
  });

  it('brings any words through a shell as they are', () => {
    const word = fc.string({ unit: 'binary' }).filter((text) => !/[\0\ud800-\udfff]/.test(text));
    fc.assert(
      fc.property(fc.array(word, { minLength: 1 }), (words) => {
        expect(shell(`set -- ${words.map(shellQuote).join(' ')}\n`)).toEqual(words);
      }),
      { numRuns: 30 },
    );
  });

  it('brings folder, marker and variables through a shell as they are', () => {
    const script = jobScript(job({ folder: "/a 'b'", environment: { IOMMUFD_X: '1\n2\n', TERM: '$x' } }));
    expect(shell(script, 'folder', 'marker', 'IOMMUFD_X', 'TERM')).toEqual([
      'true',
      "/a 'b'",
      'mark',
      '1\n2\n',
      '$x',
    ]);
  });

  it('calls for the modules, the binding and the shares before the variables are set', () => {
    const options = { bind: true, nvme: true, shares: ["/it's", '/b'], user: 0, command: ['true'] };
    const functions =
      'load_module() { said="$said load $1"; }; ' +
      'bind_vfio() { said="$said bind $1"; }; mount_share() { said="$said $1 $2"; };\n';
    const modules = ["/it's/a.ko", '/b.ko'];
    const script = jobScript(job({ options, modules, environment: { PATH: '/nowhere' } }));
    expect(script.indexOf('mount_share')).toBeLessThan(script.indexOf('PATH'));
    const bound = [...EDU_ADDRESSES, NVME_ADDRESS].map((address) => ` bind ${address}`).join('');
    expect(shell(functions + script, 'said')).toEqual([
      'true',
      ` load /it's/a.ko load /b.ko${bound} share0 /it's share1 /b`,
    ]);
  });

  it('says its length in bytes first', () => {
    const message = jobMessage(job({ folder: '/ünï' }));
    const [size] = message.toString().split('\n');
    expect(message.length).toBe(size!.length + 1 + Number(size));
  });

  it('passes on the variables that matter and no other', () => {
    const all = {
      CI: 'true',
      IOMMUFD_BACKEND: 'linux',
      PATH: '/bin',
      TERM: 'x',
      HOME: '/root',
      SECRET: 's',
      NO_COLOR: undefined,
    };
    expect(passedEnvironment(all)).toEqual({ CI: 'true', IOMMUFD_BACKEND: 'linux', PATH: '/bin', TERM: 'x' });
  });
});
