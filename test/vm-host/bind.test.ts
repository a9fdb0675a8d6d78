/** `iommufd devices`, `bind` and `unbind` on Linux, in a guest with disks. */
import { Installed } from './installed';

jest.setTimeout(600_000);

const EDU = '0000:00:04.0';
const NVME = '0000:00:05.0';
/** The device that the guest's root comes from. */
const ROOT = '0000:00:06.0';
/** Two functions of one device, in one group, both with the driver nvme. */
const PAIR = ['0000:03:00.0', '0000:03:00.1'] as const;
const OPTIONS = [
  '--no-bind',
  ...['--device', 'pcie-root-port,id=duo,chassis=3,addr=9'],
  ...['--device', 'nvme,serial=a,bus=duo,addr=0.0,multifunction=on'],
  ...['--device', 'nvme,serial=b,bus=duo,addr=0.1'],
];

let installed: Installed;

beforeAll(() => {
  installed = new Installed();
});
afterAll(() => installed.remove());

test('devices change hands and come back', () => {
  const program = `
    const drivers = () => spawnSync('sh', ['-c', 'for one in ${[EDU, NVME, ...PAIR].join(' ')}; do ' +
      'basename "$(readlink /sys/bus/pci/devices/$one/driver)"; done'], { encoding: 'utf8' }).stdout.split('\\n').slice(0, 4);
    const moved = (...args) => { const { status, moved, error } = iommufd(args); return [status, moved?.map(({ bdf, to }) => bdf + ' ' + to) ?? error.reason]; };
    const steps = [drivers()];
    for (const args of [['bind', '${EDU}'], ['bind', '${NVME}'], ['bind', '${PAIR[0]}'], ['bind', '--group', '${PAIR[1]}']])
      steps.push(moved(...args));
    steps.push(drivers());
    for (const args of [['unbind', '${EDU}'], ['unbind', '${NVME}'], ['unbind', '--group', '${PAIR[0]}']])
      steps.push(moved(...args));
    answer([...steps, drivers()]);`;
  expect(installed.guest(OPTIONS, program)).toEqual([
    ['', 'nvme', 'nvme', 'nvme'],
    [0, [`${EDU} vfio-pci`]],
    [0, [`${NVME} vfio-pci`]],
    [3, expect.stringContaining(`also has ${PAIR[1]} (driver nvme), which must go with it`)],
    [0, [`${PAIR[1]} vfio-pci`, `${PAIR[0]} vfio-pci`]],
    ['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci'],
    [0, [`${EDU} null`]],
    [0, [`${NVME} nvme`]],
    [0, [`${PAIR[0]} nvme`, `${PAIR[1]} nvme`]],
    ['', 'nvme', 'nvme', 'nvme'],
  ]);
});

test('devices in use are left where they are', () => {
  const program = `
    const { closeSync, constants, openSync } = require('node:fs');
    const refused = (...args) => { const { status, error } = iommufd(args); return [status, error?.reason]; };
    const rows = spawnSync(process.execPath, ['node_modules/iommufd/dist/lib/cli/main.js', 'devices', '--json']).stdout;
    const inUse = JSON.parse(rows).filter(({ uses }) => uses.length > 0).map(({ bdf }) => bdf);
    const found = [inUse, refused('bind', '${ROOT}')];
    const fd = openSync('/dev/nvme0n1', constants.O_RDONLY | constants.O_EXCL);
    found.push(refused('bind', '${NVME}'));
    closeSync(fd);
    const made = shell(['mkfs.ext4 -q /dev/nvme0n1', 'mkdir /tmp/disk', 'mount /dev/nvme0n1 /tmp/disk']);
    found.push(made, refused('bind', '${NVME}'), shell(['umount /tmp/disk']), refused('bind', '${NVME}'));
    const { Iommu } = require('iommufd');
    const iommu = Iommu.open({ backend: 'linux' });
    const version = iommu.bind('${NVME}', { cookie: 1 }).region('bar0').read32(8);
    found.push(version, refused('unbind', '${NVME}').map((one) => String(one).replace(/process \\d+/, 'process N')));
    iommu.close();
    answer([...found, refused('unbind', '${NVME}'), refused('unbind', '${NVME}'), refused('bind', '00:07.0')]);`;
  expect(installed.guest(OPTIONS, program)).toEqual([
    [ROOT],
    [3, `${ROOT} is in use: the host's share 'root' is mounted at /`],
    [3, `${NVME} is in use: something has claimed nvme0n1 for itself`],
    [0, 0, 0],
    [3, `${NVME} is in use: nvme0n1 is mounted at /tmp/disk`],
    [0],
    [0, null],
    // The controller's version, 1.4 (NVM Express, VS).
    0x10400,
    ['3', `${NVME} is open in process N (node)`],
    [0, null],
    [1, `${NVME} has nvme, not vfio-pci`],
    [1, '0000:00:07.0 is a bridge: VFIO takes what is behind it only'],
  ]);
});

test('the driver is not forgotten: unbound by hand, bound twice, by two at once, bound by one that was killed', () => {
  const program = `
    const { spawn } = require('node:child_process');
    const state = () => spawnSync('sh', ['-c', 'basename "$(readlink /sys/bus/pci/devices/${NVME}/driver)"; ' +
      'cat /sys/bus/pci/devices/${NVME}/driver_override'], { encoding: 'utf8' }).stdout.trim().split('\\n').join(' ');
    const run = (...args) => { const { status, moved, error } = iommufd(args); return [status, moved?.map(({ from, to }) => from + ' ' + to) ?? error.reason]; };
    const byHand = () => shell(['echo ${NVME} > /sys/bus/pci/drivers/vfio-pci/unbind']);
    const ended = (child) => new Promise((done) => child.on('exit', (status, signal) => done(status ?? signal)));
    const start = () => spawn(process.execPath, ['node_modules/iommufd/dist/lib/cli/main.js', 'bind', '${NVME}', '--json'], { stdio: 'ignore' });
    async function main() {
      const steps = [run('bind', '${NVME}'), byHand(), state(), run('bind', '${NVME}'), run('unbind', '${NVME}'), state()];
      steps.push(run('bind', '${NVME}'), byHand(), run('unbind', '${NVME}'), state());
      steps.push(await Promise.all([start(), start()].map(ended)), state(), run('unbind', '${NVME}'), state());
      for (const delay of [400, 600, 800, 1000, 1200]) {
        const child = start();
        setTimeout(() => child.kill('SIGKILL'), delay);
        await ended(child);
        const [bound] = run('bind', '${NVME}');
        steps.push([bound, run('unbind', '${NVME}')[0], state()]);
      }
      answer(steps);
    }
    main();`;
  const killed = Array.from({ length: 5 }, () => [0, 0, 'nvme (null)']);
  expect(installed.guest(OPTIONS, program)).toEqual([
    ...[[0, ['nvme vfio-pci']], [0], 'vfio-pci', [0, ['null vfio-pci']]],
    ...[[0, ['vfio-pci nvme']], 'nvme (null)'],
    ...[[0, ['nvme vfio-pci']], [0], [0, ['null nvme']], 'nvme (null)'],
    ...[[0, 0], 'vfio-pci vfio-pci', [0, ['vfio-pci nvme']], 'nvme (null)'],
    ...killed,
  ]);
});
