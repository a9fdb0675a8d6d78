/** What goes wrong on real systems: programs that are killed, users without permission. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Iommu } from '../../lib';

const ROOT = join(__dirname, '../../..');
const EDU = '0000:00:04.0';

jest.setTimeout(60_000);

/** A program that binds edu, maps memory, has an interrupt and a fault queue open, starts a DMA, and waits. */
const HOLDER = `
  const { Iommu } = require('iommufd');
  const iommu = Iommu.open({ backend: 'linux' });
  const device = iommu.bind('${EDU}', { cookie: 1 });
  const space = iommu.createAddressSpace();
  device.attach(space);
  const { iova } = space.map(iommu.allocateDma(1 << 20));
  device.enableBusMaster();
  device.interrupt('msi').on('interrupt', () => {});
  iommu.createFaultQueue();
  const bar = device.region('bar0');
  bar.write64(0x80, iova);
  bar.write64(0x88, 0x40000n);
  bar.write64(0x90, 2048n);
  bar.write64(0x98, 1n);
  console.log('holding');
  setInterval(() => {}, 1e6);`;

test('a program killed in the middle leaves nothing behind', async () => {
  for (let round = 0; round < 2; round++) {
    const child = spawn(process.execPath, ['-e', HOLDER], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    expect(line.toString()).toBe('holding\n');
    child.kill('SIGKILL');
    await once(child, 'exit');

    using iommu = Iommu.open({ backend: 'linux' });
    const device = iommu.bind(EDU, { cookie: 2 });
    const space = iommu.createAddressSpace();
    device.attach(space);
    expect(space.map(iommu.allocateDma(4096)).length).toBe(4096);
    expect(device.region('bar0').read32(0)).toBe(0x010000ed);
  }
});

test('without permission, the error says so: no silent simulation', () => {
  const program = `
    // Loaded first: this user may not be able to read the package's folder.
    const { Iommu } = require('iommufd');
    require('iommufd/kernel').openKernel('linux');
    process.setgroups([]);
    process.setgid(12345);
    process.setuid(12345);
    try { Iommu.open(); }
    catch (error) { console.log(JSON.stringify({ ...error, message: error.message })); }`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, IOMMUFD_BACKEND: 'auto' },
  });
  expect(stderr).toBe('');
  expect(JSON.parse(stdout)).toMatchObject({
    code: 'EACCES',
    errno: -13,
    syscall: 'open',
    path: '/dev/iommu',
  });
});

test('without a driver bound to VFIO, the error names the commands; they work', () => {
  using iommu = Iommu.open({ backend: 'linux' });
  const driver = '/sys/bus/pci/drivers/vfio-pci';
  expect(iommu.kernel.writeFile(`${driver}/unbind`, EDU)).toBe(EDU.length);
  let message = '';
  try {
    iommu.bind(EDU, { cookie: 1 });
  } catch (error) {
    message = (error as Error).message;
  } finally {
    iommu.kernel.writeFile(`/sys/bus/pci/devices/${EDU}/driver_override`, 'vfio-pci');
    iommu.kernel.writeFile('/sys/bus/pci/drivers_probe', EDU);
  }
  expect(message).toMatch(/ENODEV/);
  expect(message).toContain('driver_override');
  expect(iommu.bind(EDU, { cookie: 1 }).bdf).toBe(EDU);
});
