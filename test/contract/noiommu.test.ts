/**
 * Devices that no IOMMU is in front of, by raw calls. On Linux these tests need a machine like that, with
 * vfio.enable_unsafe_noiommu_mode on (npm run vm -- --iommu none); where there is an IOMMU they are left out.
 */
import { openKernel, O_RDWR, type Kernel, type Memory } from '../../lib/open-kernel';
import { attempt } from '../../lib/ioctl';
import { Machine } from '../../lib/sim';
import { Edu } from '../../lib/sim/devices/edu';
import * as uapi from '../../lib/uapi';
import { edu } from '../../lib/sim';
import { code, U64_MAX } from './calls';
import { backend, EDU, fill, PAGE, until } from './support';

const FOLDER = `/sys/bus/pci/devices/${EDU}`;
const FILE = '/dev/vfio/devices/noiommu-vfio0';
const UNSAFE = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
const BUS_MASTER = 4;

const kernel: Kernel =
  backend === 'linux'
    ? openKernel('linux')
    : openKernel(
        new Machine({
          iommu: 'none',
          selftest: true,
          devices: { [EDU]: new Edu({ dmaMask: 2n ** 48n - 1n }) },
        }),
      );
const names = kernel.readdir(`${FOLDER}/vfio-dev`);
const here = Array.isArray(names) && names.some((name) => name.startsWith('noiommu-'));

type Encoded<S extends uapi.Struct> = Parameters<S['encode']>[0];

const fds: number[] = [];
const memories: Memory[] = [];

function open(path: string): number {
  const fd = kernel.open(path, O_RDWR);
  if (fd >= 0) fds.push(fd);
  return fd;
}

function call<S extends uapi.Struct>(fd: number, row: uapi.Ioctl<S>, values: Encoded<S>) {
  const { result, out } = attempt(kernel, fd, row, values);
  return { code: code(result), out };
}

function allocate(bytes: number): Memory {
  const memory = kernel.allocate(bytes);
  if (typeof memory === 'number') throw new Error(`allocate: ${code(memory)}`);
  memories.push(memory);
  return memory;
}

/** An iommufd with an IOAS, the device bound and, unless told otherwise, attached. */
function begin(attached = true) {
  const iommufd = open('/dev/iommu');
  const ioas = call(iommufd, uapi.IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
  const vfio = open(FILE);
  const bound = call(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd });
  expect(bound.code).toBe(0);
  const attach = (pt_id: number) => {
    const { code: result, out } = call(vfio, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id });
    return result === 0 ? out.pt_id : result;
  };
  if (attached) expect(attach(ioas)).toBe(3);
  const map = (iova: bigint, user_va: bigint, length: number) =>
    call(iommufd, uapi.IOMMU_IOAS_MAP, { ioas_id: ioas, flags: 7, iova, user_va, length }).code;
  const physical = (iova: bigint, length: bigint | number, more: object = {}) => {
    const values = { ioas_id: ioas, iova, length, ...more };
    const { code: result, out } = call(iommufd, uapi.IOMMU_IOAS_NOIOMMU_GET_PA, values);
    return result === 0 ? { physical: out.out_phys, length: out.length } : result;
  };
  return { iommufd, ioas, vfio, device: bound.out.out_devid, attach, map, physical };
}

afterEach(() => {
  for (const fd of fds.splice(0).reverse()) kernel.close(fd);
  for (const memory of memories.splice(0)) memory.free();
});

(here ? describe : describe.skip)('a device without an IOMMU', () => {
  test('has names of its own', () => {
    expect(kernel.readdir(`${FOLDER}/vfio-dev`)).toEqual(['noiommu-vfio0']);
    expect(kernel.readlink('/sys/class/vfio-dev/noiommu-vfio0')).toMatch(/vfio-dev\/noiommu-vfio0$/);
    expect(kernel.readlink(`${FOLDER}/iommu_group`)).toMatch(/iommu_groups\/0$/);
    expect(kernel.readFile('/sys/kernel/iommu_groups/0/name')).toBe('vfio-noiommu\n');
    expect(kernel.readFile('/sys/kernel/iommu_groups/0/type')).toBe('unknown\n');
    expect(code(kernel.readlink(`${FOLDER}/iommu`) as number)).toBe('ENOENT');
    expect(kernel.readFile(UNSAFE)).toBe('Y\n');
  });

  test('goes to programs only where the kernel was told to', () => {
    const driver = '/sys/bus/pci/drivers/vfio-pci';
    const write = (path: string, text: string) => code(kernel.writeFile(path, text));
    expect(write(UNSAFE, 'maybe')).toBe('EINVAL');
    expect(write(UNSAFE, 'off')).toBe(3);
    expect(kernel.readFile(UNSAFE)).toBe('N\n');
    // Whoever has it keeps it.
    expect(begin().physical(0n, 1)).toBe('ENOENT');
    for (const fd of fds.splice(0).reverse()) kernel.close(fd);
    write(`${driver}/unbind`, EDU);
    expect(code(kernel.readdir('/sys/kernel/iommu_groups/0') as number)).toBe('ENOENT');
    expect(code(kernel.readlink(`${FOLDER}/iommu_group`) as number)).toBe('ENOENT');
    expect(write(`${driver}/bind`, EDU)).toBe('EINVAL');
    expect(code(kernel.readlink(`${FOLDER}/driver`) as number)).toBe('ENOENT');
    expect(write(UNSAFE, '1\n')).toBe(2);
    expect(write(`${driver}/bind`, EDU)).toBe(EDU.length);
    expect(kernel.readdir(`${FOLDER}/vfio-dev`)).toEqual(['noiommu-vfio0']);
  });

  test('is described, and not its IOMMU', () => {
    const { iommufd, vfio, device } = begin(false);
    expect(call(vfio, uapi.VFIO_DEVICE_GET_INFO, {}).out).toMatchObject({
      flags: uapi.VFIO_DEVICE_FLAGS_PCI,
      num_regions: 9,
      num_irqs: 5,
    });
    expect(call(iommufd, uapi.IOMMU_GET_HW_INFO, { dev_id: device }).code).toBe('EOPNOTSUPP');
    expect(call(iommufd, uapi.IOMMU_GET_HW_INFO, { dev_id: 99 }).code).toBe('ENOENT');
    expect(call(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd }).code).toBe('EINVAL');
    const second = open(FILE);
    expect(call(second, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd }).code).toBe('EINVAL');
    expect(call(iommufd, uapi.IOMMU_DESTROY, { id: device }).code).toBe('EBUSY');
  });

  test('takes any table, none of which it looks at', () => {
    const { iommufd, ioas, vfio, device, attach } = begin(false);
    const hwpt = (values: Encoded<typeof uapi.iommu_hwpt_alloc>) => {
      const { code: result, out } = call(iommufd, uapi.IOMMU_HWPT_ALLOC, {
        dev_id: device,
        pt_id: ioas,
        ...values,
      });
      return result === 0 ? out.out_hwpt_id : result;
    };
    for (const flags of [1, 2, 8]) expect(hwpt({ flags })).toBe('EOPNOTSUPP');
    const { address } = allocate(PAGE);
    const data = { data_type: 1, data_len: 8, data_uptr: address };
    expect(hwpt(data)).toBe('EOPNOTSUPP');
    const plain = hwpt({}) as number;
    expect(hwpt({ pt_id: plain, ...data })).toBe('EOPNOTSUPP');
    const { out } = call(iommufd, uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    fds.push(out.out_fault_fd);
    const faulting = hwpt({ flags: 4, fault_id: out.out_fault_id }) as number;
    expect(attach(plain)).toBe(plain);
    expect(attach(faulting)).toBe(faulting);
    const pasid = { flags: uapi.VFIO_DEVICE_ATTACH_PASID, pasid: 1, pt_id: plain };
    expect(call(vfio, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, pasid).code).toBe('EINVAL');
    expect(call(iommufd, uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id: plain, flags: 1 }).code).toBe(
      'EOPNOTSUPP',
    );
    expect(call(vfio, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}).code).toBe(0);
  });

  test('uses the tables of others too', () => {
    const { iommufd, ioas, attach, map, physical } = begin(false);
    const made = call(iommufd, uapi.IOMMU_TEST_CMD, { op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN, id: ioas });
    expect(made.code).toBe(0);
    const { out_hwpt_id: mock, out_stdev_id: stdev } = made.out.mock_domain;
    expect(attach(ioas)).toBe(mock);
    const { address } = allocate(PAGE);
    const iova = BigInt(uapi.MOCK_APERTURE_START);
    expect(map(iova, address, PAGE)).toBe(0);
    expect(physical(iova, PAGE)).toBe('EOPNOTSUPP');
    expect(call(iommufd, uapi.IOMMU_DESTROY, { id: stdev }).code).toBe(0);
    expect(physical(iova, PAGE)).toBe('EOPNOTSUPP');
  });

  test('leaves every IOVA usable, in whole pages', () => {
    const { iommufd, ioas, map } = begin();
    const { address } = allocate(2 * PAGE);
    const ranges = call(iommufd, uapi.IOMMU_IOAS_IOVA_RANGES, {
      ioas_id: ioas,
      num_iovas: 1,
      allowed_iovas: address,
    });
    expect(ranges.out).toMatchObject({ num_iovas: 1, out_iova_alignment: BigInt(PAGE) });
    expect(map(0xfee0_0000n, address, PAGE)).toBe(0);
    expect(map(U64_MAX - 4095n, address, PAGE)).toBe(0);
    expect(map(0x1_0800n, address, PAGE)).toBe('EINVAL');
    expect(map(0x1_0000n, 0x1000n, PAGE)).toBe('EFAULT');
    call(iommufd, uapi.IOMMU_VFIO_IOAS, { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: ioas });
    const info = call(iommufd, uapi.VFIO_IOMMU_GET_INFO, {});
    expect(info.out.iova_pgsizes).toBe(0xf_ff7f_ffff_f000n);
    expect(kernel.ioctl(iommufd, uapi.VFIO_CHECK_EXTENSION.request, uapi.VFIO_DMA_CC_IOMMU)).toBe(0);
  });
});

(here ? describe : describe.skip)('the group of such a device', () => {
  const setContainer = (group: number, fd: number) => call(group, uapi.VFIO_GROUP_SET_CONTAINER, { fd }).code;
  const check = (iommufd: number, extension: number) =>
    code(kernel.ioctl(iommufd, uapi.VFIO_CHECK_EXTENSION.request, extension));
  const setType = (iommufd: number, type: number) =>
    code(kernel.ioctl(iommufd, uapi.VFIO_SET_IOMMU.request, type));

  test('makes an iommufd a container without translation', () => {
    const iommufd = open('/dev/iommu');
    const group = open('/dev/vfio/noiommu-0');
    expect(setType(iommufd, uapi.VFIO_NOIOMMU_IOMMU)).toBe('EINVAL');
    expect(setContainer(group, iommufd)).toBe(0);
    expect(Array.from({ length: 11 }, (_, i) => check(iommufd, i))).toEqual([
      ...[0, 0, 0, 0, 'ENODEV', 0, 0, 0, 1, 0, 0],
    ]);
    expect(setType(iommufd, uapi.VFIO_NOIOMMU_IOMMU)).toBe(0);
    for (const type of [uapi.VFIO_TYPE1_IOMMU, uapi.VFIO_TYPE1v2_IOMMU])
      expect(setType(iommufd, type)).toBe('EINVAL');
    expect(call(iommufd, uapi.VFIO_IOMMU_UNMAP_DMA, {}).code).toBe('ENODEV');
    expect(call(group, uapi.VFIO_GROUP_GET_STATUS, {}).out.flags).toBe(3);
    // It stays one.
    expect(code(kernel.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER.request))).toBe(0);
    expect(check(iommufd, uapi.VFIO_TYPE1_IOMMU)).toBe(0);
    // But what else an iommufd can do goes on.
    const ioas_id = call(iommufd, uapi.IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
    expect(call(iommufd, uapi.IOMMU_VFIO_IOAS, { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id }).code).toBe(0);
    expect(call(iommufd, uapi.VFIO_IOMMU_GET_INFO, {}).code).toBe(0);
  });

  test('goes into no container that translates', () => {
    const iommufd = open('/dev/iommu');
    const group = open('/dev/vfio/noiommu-0');
    const ioas_id = call(iommufd, uapi.IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
    const choose = (op: number) => call(iommufd, uapi.IOMMU_VFIO_IOAS, { op, ioas_id }).code;
    expect(choose(uapi.IOMMU_VFIO_IOAS_SET)).toBe(0);
    expect(setContainer(group, iommufd)).toBe('EINVAL');
    expect(check(iommufd, uapi.VFIO_TYPE1_IOMMU)).toBe(1);
    expect(choose(uapi.IOMMU_VFIO_IOAS_CLEAR)).toBe(0);
    expect(setContainer(group, iommufd)).toBe(0);
    expect(check(iommufd, uapi.VFIO_TYPE1_IOMMU)).toBe(0);
  });
});

(here ? describe : describe.skip)('NOIOMMU_GET_PA', () => {
  const IOVA = 0x1_0000n;

  test('the order of complaints', () => {
    const { physical, map } = begin();
    expect(map(IOVA, allocate(PAGE).address, PAGE)).toBe(0);
    const wrong = { ioas_id: 99 };
    expect(physical(U64_MAX, 0, { ...wrong, flags: 1 })).toBe('EOPNOTSUPP');
    expect(physical(U64_MAX, 0, { ...wrong, __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(physical(U64_MAX, 0, wrong)).toBe('EINVAL');
    expect(physical(U64_MAX, 1, wrong)).toBe('EOVERFLOW');
    expect(physical(IOVA, 1, wrong)).toBe('ENOENT');
    expect(physical(IOVA, 1, { ioas_id: 3 })).toBe('ENOENT');
    expect(physical(IOVA - 1n, 1)).toBe('ENOENT');
    expect(physical(IOVA + 4096n, 1)).toBe('ENOENT');
  });

  test('answers while a table of such a device has the mapping', () => {
    const { vfio, ioas, attach, map, physical } = begin(false);
    expect(map(IOVA, allocate(PAGE).address, PAGE)).toBe(0);
    expect(physical(IOVA, 1)).toBe('EOPNOTSUPP');
    attach(ioas);
    expect(physical(IOVA, 1)).toMatchObject({ length: 1n });
    expect(call(vfio, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}).code).toBe(0);
    expect(physical(IOVA, 1)).toBe('EOPNOTSUPP');
  });

  test('the length is what is contiguous, and no more than asked for', () => {
    const { map, physical } = begin();
    const { address } = allocate(4 * PAGE);
    expect(map(IOVA, address, 4 * PAGE)).toBe(0);
    const first = physical(IOVA, PAGE) as { physical: bigint; length: bigint };
    expect(first).toEqual({ physical: first.physical, length: 4096n });
    expect(first.physical % 4096n).toBe(0n);
    for (const [offset, asked, length] of [
      [0n, 1n, 1n],
      [0x800n, 0x800n, 0x800n],
      [0x801n, 1n, 1n],
    ])
      expect(physical(IOVA + offset, asked)).toEqual({ physical: first.physical + offset, length });
    // At the end of the mapping contiguous memory does not matter.
    expect(physical(IOVA + 0x3800n, U64_MAX)).toMatchObject({ length: 0x800n });
    const whole = physical(IOVA, U64_MAX) as { length: bigint };
    expect(whole.length % 4096n).toBe(0n);
    expect(whole.length).toBeLessThanOrEqual(0x4000n);
    // The same page mapped twice is not contiguous with itself.
    expect(map(IOVA + 0x4000n, address, PAGE)).toBe(0);
    expect(physical(IOVA + 0x3000n, U64_MAX)).toMatchObject({ length: 4096n });
  });

  test('the device reaches the memory at the address', async () => {
    const { vfio, map, physical } = begin();
    const memory = allocate(2 * PAGE);
    fill(memory.bytes.subarray(0, 64), 5);
    for (const [page, iova] of [0n, 1n].map((n) => [n, IOVA + n * 4096n]))
      expect(map(iova, memory.address + page * 4096n, PAGE)).toBe(0);
    const [source, target] = [IOVA, IOVA + 4096n].map((iova) => {
      const found = physical(iova, PAGE);
      return typeof found === 'object' ? found.physical : 0n;
    });
    const region = (index: number) =>
      Number(call(vfio, uapi.VFIO_DEVICE_GET_REGION_INFO, { index }).out.offset);
    const command = new Uint8Array(2);
    const config = region(uapi.VFIO_PCI_CONFIG_REGION_INDEX);
    expect(kernel.pread(vfio, command, config + 4)).toBe(2);
    command[0] |= BUS_MASTER;
    expect(kernel.pwrite(vfio, command, config + 4)).toBe(2);
    const bar = region(uapi.VFIO_PCI_BAR0_REGION_INDEX);
    const write = (register: number, value: bigint) =>
      kernel.pwrite(vfio, new Uint8Array(BigUint64Array.of(value).buffer), bar + register);
    const transfer = async (from: bigint, to: bigint, direction: bigint) => {
      write(edu.DMA_SOURCE, from);
      write(edu.DMA_DESTINATION, to);
      write(edu.DMA_COUNT, 64n);
      write(edu.DMA_COMMAND, 1n | (direction << 1n));
      const status = new Uint8Array(8);
      await until(() => kernel.pread(vfio, status, bar + edu.DMA_COMMAND) === 8 && (status[0] & 1) === 0);
    };
    await transfer(source, 0x4_0000n, 0n);
    await transfer(0x4_0000n, target, 1n);
    expect(memory.bytes.subarray(PAGE, PAGE + 64)).toEqual(memory.bytes.subarray(0, 64));
  });
});
