// QEMU's command line for the guest. Pure: options in, arguments out.
import type { Accelerator, IommuType, VmOptions } from './options';

/**
 * File descriptors that QEMU inherits: sockets for the three streams, the control channel and the console; the disk;
 * for a dump of tables, the guest's memory and a socket for the guest's side of it.
 */
export const FD = { control: 3, stdout: 4, stderr: 5, console: 6, disk: 7, memory: 8, tables: 9 } as const;

/** Bytes of guest memory below 4 GiB, at most: the rest begins at 4 GiB. */
export const LOW_MEMORY_BYTES = 2 ** 31;

export interface Machine {
  kernel: string;
  /** The guest's first program, a path on the host. */
  init: string;
  options: VmOptions;
}

/**
 * Where the guest has its edu devices: one on the root bus, which nothing can reset; one alone behind a root port; and
 * the two functions of one device behind another, which are in one IOMMU group.
 */
export const EDU_ADDRESSES = ['0000:00:04.0', '0000:01:00.0', '0000:02:00.0', '0000:02:00.1'] as const;

/** Bytes of the guest's disk, and of the room for one with metadata: as many blocks, of 520 bytes. */
export const DISK_BYTES = 64 * 1024 * 1024;
export const PROTECTED_BYTES = (DISK_BYTES / 512) * 520;

/** Where the guest has its NVMe disk. */
export const NVME_ADDRESS = '0000:00:05.0';

/** Without interrupt remapping the kernel refuses to hand devices out (EPERM at bind). */
function iommuDevice({ iommu, interruptRemapping }: VmOptions): string[] {
  const intremap = `intremap=${interruptRemapping ? 'on' : 'off'}`;
  const devices: Record<IommuType, string[]> = {
    intel: ['-device', `intel-iommu,${intremap},x-scalable-mode=on,device-iotlb=on`],
    amd: ['-device', `amd-iommu,${intremap},device-iotlb=on`],
    virtio: ['-device', 'virtio-iommu-pci,addr=3'],
    none: [],
  };
  return devices[iommu];
}

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
  // One thread for all processors, or the count would depend on how they take turns; where all sleep, time jumps.
  icount: ['-accel', 'tcg,thread=single', '-cpu', 'max', '-icount', 'shift=0,sleep=off'],
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
    // A host that is busy holds back the timer which the kernel would try at boot.
    'no_timer_check',
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

function streams(tables: boolean): string[] {
  const names = ['control', 'stdout', 'stderr', ...(tables ? (['tables'] as const) : [])] as const;
  const ports = names.flatMap((name, index) => [
    '-chardev',
    `socket,id=${name},fd=${FD[name]}`,
    '-device',
    `virtserialport,bus=serial.0,nr=${index + 1},chardev=${name},name=iommufd.${name}`,
  ]);
  const console = ['-chardev', `socket,id=console,fd=${FD.console}`, '-serial', 'chardev:console'];
  return [...console, '-device', 'virtio-serial-pci,id=serial,addr=2', ...ports];
}

/** Memory in a file that the host reads while the guest runs. */
function sharedMemory(size: string): string[] {
  return [
    '-object',
    `memory-backend-file,id=memory,size=${size},mem-path=/proc/self/fd/${FD.memory},share=on`,
    ...['-machine', `memory-backend=memory,max-ram-below-4g=${LOW_MEMORY_BYTES}`],
  ];
}

/** A part of the file that the guest's disks are in. */
function diskPart(name: string, offset: number, size: number): string[] {
  const file = 'file.driver=file,file.filename=/dev/fdset/1,file.locking=off';
  return ['-blockdev', `driver=raw,node-name=${name},offset=${offset},size=${size},${file}`];
}

/** The guest's disk; and room for another one, of 8 bytes of metadata for each block: --device has to name it. */
function disks(): string[] {
  return [
    ...['-add-fd', `fd=${FD.disk},set=1`],
    ...diskPart('disk', 0, DISK_BYTES),
    ...diskPart('protected', DISK_BYTES, PROTECTED_BYTES),
    ...['-device', 'nvme,drive=disk,serial=iommufd,addr=5'],
  ];
}

/** At EDU_ADDRESSES: buses are numbered in the order of their ports. */
function edus(): string[] {
  const edu = 'edu,dma_mask=0xffffffffffff';
  return [
    `${edu},addr=4`,
    'pcie-root-port,id=single,chassis=1,addr=7',
    `${edu},bus=single`,
    'pcie-root-port,id=pair,chassis=2,addr=8',
    `${edu},bus=pair,addr=0.0,multifunction=on`,
    `${edu},bus=pair,addr=0.1`,
  ].flatMap((device) => ['-device', device]);
}

/** All arguments of QEMU for one guest. */
export function qemuArguments(machine: Machine): string[] {
  const { options } = machine;
  const tables = options.dumpTables !== undefined;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', 'q35,kernel-irqchip=split', '-smp', String(options.cpus), '-m', options.memory],
    ...(tables ? sharedMemory(options.memory) : []),
    ...ACCELERATION[options.accel],
    // First: QEMU gives a device the IOMMU that was there before it.
    ...iommuDevice(options),
    // Slot 1 is where amd-iommu puts its PCI function.
    ...share('root', '/', ',readonly=on', ',addr=6'),
    ...streams(tables),
    ...edus(),
    ...disks(),
    // Last: these take whichever slots are free.
    ...options.shares.flatMap((path, index) => share(shareTag(index), path, '', '')),
    ...options.devices.flatMap((device) => ['-device', device]),
    ...['-kernel', machine.kernel, '-append', kernelParameters(machine)],
  ];
}
