// Runs in the guest only: what the tests on a real kernel take for granted.
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';

const EDU = '/sys/bus/pci/devices/0000:00:04.0';
const NVME = '/sys/bus/pci/devices/0000:00:05.0';
const EROFS = 'EROFS';

function read(path: string): string {
  return readFileSync(path, 'utf8').trim();
}

describe('the guest', () => {
  it('has /dev/iommu, which opens', () => {
    expect(statSync('/dev/iommu').isCharacterDevice()).toBe(true);
    closeSync(openSync('/dev/iommu', 'r+'));
  });

  it('has edu bound to vfio-pci, as a VFIO character device', () => {
    expect([read(`${EDU}/vendor`), read(`${EDU}/device`)]).toEqual(['0x1234', '0x11e8']);
    expect(basename(readlinkSync(`${EDU}/driver`))).toBe('vfio-pci');
    const [cdev] = readdirSync(`${EDU}/vfio-dev`);
    expect(statSync(`/dev/vfio/devices/${cdev}`).isCharacterDevice()).toBe(true);
  });

  it('has edu alone in its IOMMU group', () => {
    expect(readdirSync(`${EDU}/iommu_group/devices`)).toEqual(['0000:00:04.0']);
  });

  it('has an NVMe disk of 64 MiB with its own driver', () => {
    expect(basename(readlinkSync(`${NVME}/driver`))).toBe('nvme');
    const [controller] = readdirSync(`${NVME}/nvme`);
    expect(read(`/sys/class/nvme/${controller}/serial`)).toBe('iommufd');
    const sectors = Number(read(`/sys/block/${controller}n1/size`));
    expect(sectors * 512).toBe(64 * 1024 * 1024);
  });

  it('has an Intel IOMMU in scalable mode', () => {
    const [unit] = readdirSync('/sys/class/iommu').filter((name) => name.startsWith('dmar'));
    const ecap = BigInt(`0x${read(`/sys/class/iommu/${unit}/intel-iommu/ecap`)}`);
    // ECAP_REG.SMTS, bit 43.
    expect((ecap >> 43n) & 1n).toBe(1n);
  });

  it('remaps interrupts', () => {
    // A chip of an interrupt: IR-IO-APIC and the like where interrupts go through the IOMMU.
    expect(read('/proc/interrupts')).toMatch(/\bIR-/);
  });

  it('has the host as its root, read-only, and a /tmp of its own', () => {
    expect(existsSync(__filename)).toBe(true);
    expect(() => writeFileSync('/etc/written-by-the-guest', '')).toThrow(
      expect.objectContaining({ code: EROFS }),
    );
    writeFileSync('/tmp/written', 'kept');
    expect(read('/tmp/written')).toBe('kept');
  });

  it('has the debug file system and a home that can be written', () => {
    expect(existsSync('/sys/kernel/debug/iommu')).toBe(true);
    writeFileSync(`${process.env['HOME']}/written`, 'kept');
    expect(read(`${process.env['HOME']}/written`)).toBe('kept');
  });
});
