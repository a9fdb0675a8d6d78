import { parseOptions, type VmOptions } from '../../scripts/vm/options';
import { kernelParameter, qemuArguments, qemuValue } from '../../scripts/vm/qemu';

function argumentsFor(...options: string[]): string[] {
  return qemuArguments({
    kernel: '/k/bzImage',
    init: '/r/init.sh',
    options: parseOptions([...options, 'true']) as VmOptions,
  });
}

/** The values given to an option, in order. */
function valuesOf(args: string[], option: string): string[] {
  return args.filter((_, index) => args[index - 1] === option);
}

function parametersFor(...options: string[]): string[] {
  return valuesOf(argumentsFor(...options), '-append')[0]!.split(' ');
}

describe("QEMU's command line", () => {
  it('has edu at 0000:00:04.0 and an NVMe disk at 0000:00:05.0', () => {
    const devices = valuesOf(argumentsFor(), '-device');
    expect(devices).toContain('edu,dma_mask=0xffffffffffff,addr=4');
    expect(devices.filter((device) => /^nvme,.*addr=5$/.test(device))).toHaveLength(1);
    // Of one file: 131072 blocks of 512 bytes, and as many of 520 for a disk that --device makes.
    const nodes = valuesOf(argumentsFor(), '-blockdev').map((node) => node.split(',').slice(0, 4).join());
    expect(nodes).toEqual([
      'driver=raw,node-name=disk,offset=0,size=67108864',
      'driver=raw,node-name=protected,offset=67108864,size=68157440',
    ]);
  });

  it('has more edu devices behind root ports: one alone, and two functions of one device', () => {
    const devices = valuesOf(argumentsFor(), '-device');
    const behind = (port: string) => devices.filter((device) => device.includes(`,bus=${port}`));
    expect(behind('single')).toEqual(['edu,dma_mask=0xffffffffffff,bus=single']);
    expect(behind('pair').map((device) => /addr=[^,]*/.exec(device)?.[0])).toEqual(['addr=0.0', 'addr=0.1']);
    for (const port of ['single', 'pair'])
      expect(devices.findIndex((device) => device.includes(`,id=${port},`))).toBeLessThan(
        devices.indexOf(behind(port)[0]!),
      );
  });

  it("shares the host's root read-only, and boots from it", () => {
    const args = argumentsFor();
    const [root] = valuesOf(args, '-fsdev');
    expect(root).toMatch(/^local,id=root,path=\/,.*readonly=on$/);
    expect(valuesOf(args, '-kernel')).toEqual(['/k/bzImage']);
    expect(parametersFor()).toEqual(
      expect.arrayContaining(['root=root', 'rootfstype=9p', 'ro', 'init=/r/init.sh']),
    );
  });

  it('has an IOMMU that remaps interrupts, before any device that it serves', () => {
    const devices = valuesOf(argumentsFor(), '-device');
    expect(devices[0]).toMatch(/^intel-iommu,intremap=on,x-scalable-mode=on/);
    expect(parametersFor()).toContain('intel_iommu=on,sm_on');
  });

  it('has one that remaps none when asked', () => {
    const [iommu] = valuesOf(argumentsFor('--no-interrupt-remapping'), '-device');
    expect(iommu).toMatch(/^intel-iommu,intremap=off,x-scalable-mode=on/);
  });

  it.each([
    ['amd', /^amd-iommu,intremap=on/],
    ['virtio', /^virtio-iommu-pci/],
  ])('has an IOMMU of type %s when asked', (type, device) => {
    const iommus = valuesOf(argumentsFor('--iommu', type), '-device').filter((name) =>
      name.includes('-iommu'),
    );
    expect(iommus).toEqual([expect.stringMatching(device)]);
  });

  it('has no IOMMU when asked for none', () => {
    const line = argumentsFor('--iommu', 'none').join(' ');
    expect(line).not.toMatch(/-iommu|iommu=/);
    expect(line).toContain('vfio.enable_unsafe_noiommu_mode=1');
  });

  it('counts instructions in one thread', () => {
    const args = argumentsFor('--accel', 'icount');
    expect(valuesOf(args, '-accel')).toEqual(['tcg,thread=single']);
    expect(valuesOf(args, '-icount')).toEqual(['shift=0,sleep=off']);
    expect(argumentsFor().join(' ')).not.toContain('icount');
  });

  it('passes memory, processors, accelerator, devices and kernel parameters on', () => {
    const words = [
      '--memory',
      '1G',
      '--cpus',
      '7',
      '--accel',
      'kvm',
      '--device',
      'edu,addr=9',
      '--append',
      'x=1 y="a b"',
    ];
    const args = argumentsFor(...words);
    expect(valuesOf(args, '-m')).toEqual(['1G']);
    expect(valuesOf(args, '-smp')).toEqual(['7']);
    expect(valuesOf(args, '-accel')).toEqual(['kvm']);
    expect(valuesOf(args, '-device').at(-1)).toBe('edu,addr=9');
    expect(valuesOf(args, '-append')[0]).toMatch(/ x=1 y="a b"$/);
  });

  it('shares folders to write in under tags of their own, commas and all', () => {
    const args = argumentsFor('--share', '/a', '--share', '/b,c');
    const shares = valuesOf(args, '-fsdev').slice(1);
    expect(shares[0]).toMatch(/^local,id=share0,path=\/a,/);
    expect(shares[1]).toMatch(/^local,id=share1,path=\/b,,c,/);
    expect(shares.join()).not.toContain('readonly');
    expect(args).toContain('virtio-9p-pci,fsdev=share1,mount_tag=share1');
  });

  it('has its memory in a file, and a port for it, when tables are to be dumped', () => {
    const args = argumentsFor('--memory', '1G', '--dump-tables', 'f');
    expect(valuesOf(args, '-object')).toEqual([
      'memory-backend-file,id=memory,size=1G,mem-path=/proc/self/fd/8,share=on',
    ]);
    expect(valuesOf(args, '-chardev')).toContain('socket,id=tables,fd=9');
    expect(argumentsFor().join(' ')).not.toMatch(/memory-backend|tables/);
  });

  it('keeps the kernel quiet unless asked', () => {
    expect(parametersFor()).toContain('quiet');
    expect(parametersFor('--verbose')).not.toContain('quiet');
  });

  it('quotes', () => {
    expect(qemuValue('/a,b,,c')).toBe('/a,,b,,,,c');
    expect(kernelParameter('init=/a')).toBe('init=/a');
    expect(kernelParameter('init=/a b')).toBe('"init=/a b"');
    expect(() => kernelParameter('init=/a"b')).toThrow(RangeError);
  });
});
