/** `iommufd doctor` in six prepared situations, each a guest of its own: what it says, and whether a program agrees. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Installed } from './installed';

jest.setTimeout(600_000);

const EDU = '0000:00:04.0';
const NVME = '0000:00:05.0';
/** Everywhere called nobody. */
const USER = 65534;
/** Options of the six guests. */
const SITUATIONS = {
  'no IOMMU': ['--iommu', 'none'],
  'no /dev/iommu': ['--append', 'initcall_blacklist=iommufd_init'],
  'no permission': ['--user', String(USER)],
  'another driver': ['--no-bind'],
  'no interrupt remapping': ['--no-interrupt-remapping'],
  'all well': [],
};

let installed: Installed;

beforeAll(() => {
  installed = new Installed();
});
afterAll(() => installed.remove());

test('the situations are those of docs/cli.md', () => {
  const text = readFileSync(join(__dirname, '../../../docs/cli.md'), 'utf8');
  const lines = [...text.matchAll(/^npx iommufd vm (.*)npx iommufd doctor/gm)].map(([, options]) =>
    options.trim(),
  );
  expect(lines).toEqual(Object.values(SITUATIONS).map((options) => options.join(' ')));
});

test('no IOMMU', () => {
  expect(installed.guest(SITUATIONS['no IOMMU'], `answer([doctor(), attempt('${EDU}')])`)).toEqual([
    expect.objectContaining({
      status: 1,
      problems: ['iommu'],
      says: ['no IOMMU is on: the firmware describes none'],
    }),
    'ENODEV',
  ]);
});

test('an IOMMU without /dev/iommu', () => {
  expect(installed.guest(SITUATIONS['no /dev/iommu'], `answer([doctor(), attempt('${EDU}')])`)).toEqual([
    expect.objectContaining({
      status: 1,
      problems: ['iommufd'],
      says: ["there is no /dev/iommu (ENOENT): 'initcall_blacklist=iommufd_init' keeps it from starting"],
    }),
    'ENOENT',
  ]);
});

test('no permission', () => {
  expect(
    installed.guest(SITUATIONS['no permission'], `answer([doctor(['${EDU}']), attempt('${EDU}')])`),
  ).toEqual([
    expect.objectContaining({
      status: 1,
      problems: ['permission', 'device files'],
      commands: ['sudo chown nobody /dev/iommu', 'sudo chown nobody /dev/vfio/devices/vfio0'],
    }),
    'EACCES',
  ]);
});

test('a device on another driver, until what the doctor says is done', () => {
  const program = `
    const before = [doctor(), doctor(['${NVME}']), attempt('${NVME}')];
    const done = shell(before[1].commands);
    answer([...before, done, doctor(['${NVME}']), attempt('${NVME}')]);`;
  const none = {
    status: 1,
    problems: ['devices'],
    says: ['no device is bound to vfio-pci: there is none for programs'],
  };
  expect(installed.guest(SITUATIONS['another driver'], program)).toEqual([
    expect.objectContaining(none),
    {
      ...{ status: 1, problems: ['devices'], says: [`${NVME} has the driver nvme, not vfio-pci`] },
      commands: [`sudo env "PATH=$PATH" npx iommufd bind ${NVME}`],
    },
    'ENODEV',
    [0],
    expect.objectContaining({ status: 0, problems: [] }),
    'bound',
  ]);
});

test('interrupt remapping off, until Linux is told to trust the device', () => {
  const program = `
    const before = [doctor(), attempt('${EDU}')];
    const done = shell(before[0].commands);
    answer([...before, done, doctor(), attempt('${EDU}')]);`;
  expect(installed.guest(SITUATIONS['no interrupt remapping'], program)).toEqual([
    expect.objectContaining({
      status: 1,
      problems: ['interrupts'],
      says: ['interrupt remapping is off: Linux refuses to bind any device (EPERM)'],
    }),
    'EPERM',
    [0],
    expect.objectContaining({ status: 0, problems: [] }),
    'bound',
  ]);
});

test.each([
  [
    'AMD-Vi',
    ['--iommu', 'amd', '--no-interrupt-remapping'],
    'start .* kernel-irqchip=split and amd-iommu,intremap=on;',
  ],
  [
    'virtio-iommu',
    ['--iommu', 'virtio', '--append', 'iommufd.allow_unsafe_interrupts=0'],
    'a virtio-iommu remaps no interrupts: start .* intel-iommu,intremap=on instead;',
  ],
])('%s without interrupt remapping: the advice is for that one', (kind, options, advice) => {
  const program = `
    const { checks } = iommufd(['doctor']);
    const [iommu, interrupts] = ['iommu', 'interrupts'].map((name) => checks.find((check) => check.name === name));
    answer([iommu.says, interrupts.status, interrupts.advice, attempt('${EDU}')]);`;
  expect(installed.guest(options, program)).toEqual([
    expect.stringContaining(kind),
    'problem',
    expect.stringMatching(advice),
    'EPERM',
  ]);
});

test('all well; then a user without permission, and a missing file, until what the doctor says is done', () => {
  const program = `
    const well = [doctor(), attempt('${EDU}')];
    const refused = doctor(['${EDU}'], ${USER});
    const chowned = shell(refused.commands);
    const user = [doctor(['${EDU}'], ${USER}).problems, attempt('${EDU}', ${USER})];
    shell(['rm /dev/iommu']);
    const missing = doctor();
    const made = shell(missing.commands);
    answer({ well, refused, chowned, user, missing, made, again: [doctor().problems, attempt('${EDU}')] });`;
  expect(installed.guest(SITUATIONS['all well'], program)).toEqual({
    well: [expect.objectContaining({ status: 0, problems: [] }), 'bound'],
    refused: expect.objectContaining({ problems: ['permission', 'device files'] }) as unknown,
    chowned: [0, 0],
    user: [[], 'bound'],
    missing: expect.objectContaining({ problems: ['iommufd'] }) as unknown,
    made: [0],
    again: [[], 'bound'],
  });
});
