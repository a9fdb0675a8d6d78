// QEMU's command line for the guest. Pure: options in, arguments out.
import type { Accelerator, IommuType, VmOptions } from './options';

/** File descriptors that QEMU inherits: sockets for the three streams, the control channel and the console; the disk. */
export const FD = { control: 3, stdout: 4, stderr: 5, console: 6, disk: 7 } as const;

export interface Machine {
  kernel: string;
  /** The guest's first program, a path on the host. */
  init: string;
  options: VmOptions;
}

const IOMMU_DEVICES: Record<IommuType, string[]> = {
  // Without interrupt remapping the kernel refuses to hand devices out (EPERM at bind).
  intel: ['-device', 'intel-iommu,intremap=on,x-scalable-mode=on,device-iotlb=on'],
  amd: ['-device', 'amd-iommu,intremap=on,device-iotlb=on'],
  virtio: ['-device', 'virtio-iommu-pci,addr=3'],
  none: [],
};

const IOMMU_PARAMETERS: Record<IommuType, string[]> = {
  intel: ['intel_iommu=on,sm_on'],
  amd: ['amd_iommu=on'],
  // A virtio IOMMU remaps no interrupts: the guest has to be told that this is accepted.
  virtio: ['iommufd.allow_unsafe_interrupts=1', 'vfio_iommu_type1.allow_unsafe_interrupts=1'],
  // VFIO gives a device away that no IOMMU is in front of only where it is told to.
  none: ['vfio.enable_unsafe_noiommu_mode=1'],
};

const ACCELERATION: Record<Accelerator, string[]> = {
  tcg: ['-accel', 'tcg,thread=multi', '-cpu', 'max'],
  kvm: ['-accel', 'kvm', '-cpu', 'host'],
};

/** A value inside one of QEMU's comma-separated options. */
export function qemuValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** One kernel parameter; the kernel takes double quotes around one that has spaces, and has no way to write a quote. */
export function kernelParameter(parameter: string): string {
  if (parameter.includes('"'))
    throw new RangeError(`a kernel parameter cannot hold a double quote: ${parameter}`);
  return /\s/.test(parameter) ? `"${parameter}"` : parameter;
}

function kernelParameters(machine: Machine): string {
  const { iommu, append, verbose } = machine.options;
  const parameters = [
    'console=ttyS0',
    'root=root',
    'rootfstype=9p',
    'rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose',
    'ro',
    `init=${machine.init}`,
    // A panic restarts at once, and -no-reboot turns a restart into the end of QEMU.
    'panic=-1',
    ...IOMMU_PARAMETERS[iommu],
    ...(verbose ? [] : ['quiet']),
  ].map(kernelParameter);
  return append === '' ? parameters.join(' ') : `${parameters.join(' ')} ${append}`;
}

function share(id: string, path: string, fsOptions: string, deviceOptions: string): string[] {
  return [
    '-fsdev',
    `local,id=${id},path=${qemuValue(path)},security_model=none,multidevs=remap${fsOptions}`,
    '-device',
    `virtio-9p-pci,fsdev=${id},mount_tag=${id}${deviceOptions}`,
  ];
}

/** The tag under which the guest mounts the share of that number. */
export function shareTag(index: number): string {
  return `share${index}`;
}

function streams(): string[] {
  const ports = (['control', 'stdout', 'stderr'] as const).flatMap((name, index) => [
    '-chardev',
    `socket,id=${name},fd=${FD[name]}`,
    '-device',
    `virtserialport,bus=serial.0,nr=${index + 1},chardev=${name},name=iommufd.${name}`,
  ]);
  const console = ['-chardev', `socket,id=console,fd=${FD.console}`, '-serial', 'chardev:console'];
  return [...console, '-device', 'virtio-serial-pci,id=serial,addr=2', ...ports];
}

function disk(): string[] {
  return [
    '-add-fd',
    `fd=${FD.disk},set=1`,
    '-blockdev',
    'driver=raw,node-name=disk,file.driver=file,file.filename=/dev/fdset/1,file.locking=off',
    '-device',
    'nvme,drive=disk,serial=iommufd,addr=5',
  ];
}

/** All arguments of QEMU for one guest. */
export function qemuArguments(machine: Machine): string[] {
  const { options } = machine;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', 'q35,kernel-irqchip=split', '-smp', String(options.cpus), '-m', options.memory],
    ...ACCELERATION[options.accel],
    // First: QEMU gives a device the IOMMU that was there before it.
    ...IOMMU_DEVICES[options.iommu],
    // Slot 1 is where amd-iommu puts its PCI function.
    ...share('root', '/', ',readonly=on', ',addr=6'),
    ...streams(),
    ...['-device', 'edu,dma_mask=0xffffffffffff,addr=4'],
    ...disk(),
    // Last: these take whichever slots are free.
    ...options.shares.flatMap((path, index) => share(shareTag(index), path, '', '')),
    ...options.devices.flatMap((device) => ['-device', device]),
    ...['-kernel', machine.kernel, '-append', kernelParameters(machine)],
  ];
}
