/**
 * Raw calls on the selftest ("mock") IOMMU: the kernel's own on Linux, that of a machine with `iommu: 'mock'` in
 * simulation. Every test gets an iommufd of its own.
 */
import type { AllocateOptions } from '../../lib/kernel';
import { openKernel, O_CLOEXEC, O_RDWR, type Kernel, type Memory } from '../../lib/open-kernel';
import { Machine } from '../../lib/sim';
import * as layout from '../../lib/sim/kernel/mock/layout';
import * as uapi from '../../lib/uapi';
import { backend } from './support';

type Request = uapi.Ioctl<uapi.Struct>;
type Answer = Record<string, number>;
export type TestFields = Parameters<typeof uapi.iommu_test_cmd.encode>[0];

export const APERTURE = BigInt(uapi.MOCK_APERTURE_START);
export const MOCK_PAGE = uapi.MOCK_PAGE_SIZE;

let shared: Kernel | undefined;

/** The kernel under test. */
export function mockKernel(): Kernel {
  return (shared ??= openKernel(backend === 'linux' ? 'linux' : new Machine({ iommu: 'mock' })));
}

/** A mock device. */
export interface MockIds {
  readonly stdev: number;
  readonly hwpt: number;
  readonly device: number;
}

/** An open /dev/iommu. Calls return what ioctl(2) returns, or, where named for what they make, its id. */
export class RawIommu {
  readonly kernel = mockKernel();
  readonly fd: number;
  readonly #memory: Memory[] = [];
  readonly #fds: number[] = [];

  constructor() {
    this.fd = this.open();
  }

  /** Another iommufd, closed with this one. */
  open(): number {
    const fd = this.kernel.open('/dev/iommu', O_RDWR | O_CLOEXEC);
    if (fd < 0) throw new Error(`open gave ${fd}`);
    return this.keep(fd);
  }

  /** Has a descriptor closed at the end. */
  keep(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  /** Closes one descriptor now. */
  drop(fd: number): number {
    const index = this.#fds.indexOf(fd);
    if (index >= 0) this.#fds.splice(index, 1);
    return this.kernel.close(fd);
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) this.kernel.close(fd);
    for (const memory of this.#memory.splice(0)) memory.free();
  }

  memory(length: number, options: AllocateOptions = {}): Memory {
    const memory = this.kernel.allocate(length, options);
    if (typeof memory === 'number') throw new Error(`allocate gave ${memory}`);
    this.#memory.push(memory);
    return memory;
  }

  /** The ioctl's result, and its struct afterwards. */
  call<S extends uapi.Struct>(row: uapi.Ioctl<S>, values: Parameters<S['encode']>[0]) {
    const bytes = row.struct.encode({ size: row.struct.size, ...values });
    const result = this.kernel.ioctl(this.fd, row.request, bytes);
    return { result, out: row.struct.decode(bytes) as ReturnType<S['decode']> };
  }

  /** The result alone. */
  run(row: unknown, values: object): number {
    return this.call(row as Request, values).result;
  }

  /** The field `field` of the struct after a call that must succeed. */
  make(row: unknown, values: object, field: string): number {
    const { result, out } = this.call(row as Request, values);
    if (result !== 0) throw new Error(`${(row as Request).name} gave ${result}`);
    return (out as Answer)[field];
  }

  ioas(): number {
    return this.make(uapi.IOMMU_IOAS_ALLOC, {}, 'out_ioas_id');
  }

  destroy(id: number): number {
    return this.run(uapi.IOMMU_DESTROY, { id });
  }

  test(op: number, id: number, fields: TestFields = {}) {
    return this.call(uapi.IOMMU_TEST_CMD, { op, id, ...fields });
  }

  /** A mock device attached to `target`; a number is the error. */
  tryDevice(target: number, dev_flags?: number): MockIds | number {
    const { result, out } =
      dev_flags === undefined
        ? this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN, target)
        : this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, target, { mock_domain_flags: { dev_flags } });
    const { out_stdev_id: stdev, out_hwpt_id: hwpt, out_idev_id: device } = out.mock_domain;
    return result ? result : { stdev, hwpt, device };
  }

  device(target: number, dev_flags?: number): MockIds {
    const made = this.tryDevice(target, dev_flags);
    if (typeof made === 'number') throw new Error(`MOCK_DOMAIN gave ${made}`);
    return made;
  }

  map(ioas_id: number, memory: bigint, length: number, iova?: bigint, flags = 6): bigint | number {
    const { result, out } = this.call(uapi.IOMMU_IOAS_MAP, {
      ioas_id,
      flags: flags | (iova === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA),
      user_va: memory,
      length,
      iova: iova ?? 0n,
    });
    return result || out.iova;
  }

  /** MAP_FILE of `length` bytes from byte `start` on: the IOVA, or the error. */
  mapFile(
    ioas_id: number,
    fd: number,
    start: number | bigint,
    length: number | bigint,
    iova?: bigint,
    flags = 6,
  ): bigint | number {
    const fixed = iova === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
    const values = { ioas_id, fd, start, length, flags: flags | fixed, iova: iova ?? 0n };
    const { result, out } = this.call(uapi.IOMMU_IOAS_MAP_FILE, values);
    return result || out.iova;
  }

  /** A DMA-buf of the selftest: its descriptor, or the error. */
  dmabuf(length: number, open_flags = O_RDWR): number {
    // Linux 7.3 does not say which descriptor it is: the lowest that is free.
    const fd = this.kernel.open('/dev/iommu', O_RDWR | O_CLOEXEC);
    this.kernel.close(fd);
    const { result } = this.test(uapi.IOMMU_TEST_OP_DMABUF_GET, 0, { dmabuf_get: { length, open_flags } });
    return result || this.keep(fd);
  }

  /** Takes a DMA-buf's memory back; `revoked` 0: whoever asks anew gets it. */
  revoke(dmabuf_fd: number, revoked = 1): number {
    return this.test(uapi.IOMMU_TEST_OP_DMABUF_REVOKE, 0, { dmabuf_revoke: { dmabuf_fd, revoked } }).result;
  }

  unmap(ioas_id: number, iova: bigint, length: bigint | number): number {
    return this.run(uapi.IOMMU_IOAS_UNMAP, { ioas_id, iova, length });
  }

  hwpt(values: Parameters<typeof uapi.iommu_hwpt_alloc.encode>[0]): number {
    const { result, out } = this.call(uapi.IOMMU_HWPT_ALLOC, values);
    return result || out.out_hwpt_id;
  }

  /** A nested table on a parent or a virtual IOMMU. */
  nested(dev_id: number, pt_id: number, values: Parameters<typeof uapi.iommu_hwpt_alloc.encode>[0] = {}) {
    const data = this.memory(4096);
    data.bytes.set(layout.iommu_hwpt_selftest.encode({ iotlb: layout.IOMMU_TEST_IOTLB_DEFAULT }));
    return this.hwpt({
      dev_id,
      pt_id,
      data_type: layout.IOMMU_HWPT_DATA_SELFTEST,
      data_len: 8,
      data_uptr: data.address,
      ...values,
    });
  }

  checkMap(hwpt: number, iova: bigint, address: bigint, length: number): number {
    return this.test(uapi.IOMMU_TEST_OP_MD_CHECK_MAP, hwpt, { check_map: { iova, length, uptr: address } })
      .result;
  }

  checkRefs(address: bigint, length: number, refs: number): number {
    return this.test(uapi.IOMMU_TEST_OP_MD_CHECK_REFS, 0, { check_refs: { length, uptr: address, refs } })
      .result;
  }

  replace(stdev: number, pt_id: number): number {
    const { result, out } = this.test(uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, stdev, {
      mock_domain_replace: { pt_id },
    });
    return result || out.mock_domain_replace.pt_id;
  }

  attachPasid(stdev: number, pasid: number, pt_id: number, replace = false): number {
    const op = replace ? uapi.IOMMU_TEST_OP_PASID_REPLACE : uapi.IOMMU_TEST_OP_PASID_ATTACH;
    const { result, out } = this.test(op, stdev, { pasid_attach: { pasid, pt_id } });
    return result || out.pasid_attach.pt_id;
  }

  detachPasid(stdev: number, pasid: number): number {
    return this.test(uapi.IOMMU_TEST_OP_PASID_DETACH, stdev, { pasid_detach: { pasid } }).result;
  }

  checkPasid(stdev: number, pasid: number, hwpt_id: number): number {
    return this.test(uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, stdev, { pasid_check: { pasid, hwpt_id } }).result;
  }

  triggerFault(
    dev_id: number,
    fault: { pasid?: number; grpid?: number; perm?: number; addr?: bigint },
  ): number {
    return this.test(uapi.IOMMU_TEST_OP_TRIGGER_IOPF, 0, { trigger_iopf: { dev_id, ...fault } }).result;
  }

  faultQueue(): { id: number; fd: number } {
    const { result, out } = this.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    if (result) throw new Error(`FAULT_QUEUE_ALLOC gave ${result}`);
    return { id: out.out_fault_id, fd: this.keep(out.out_fault_fd) };
  }

  /** A virtual IOMMU, or the error. */
  viommu(dev_id: number, hwpt_id: number, values: Parameters<typeof uapi.iommu_viommu_alloc.encode>[0] = {}) {
    const type = uapi.IOMMU_VIOMMU_TYPE_SELFTEST;
    const { result, out } = this.call(uapi.IOMMU_VIOMMU_ALLOC, { type, dev_id, hwpt_id, ...values });
    return result || out.out_viommu_id;
  }

  /** A virtual device, or the error. */
  vdevice(viommu_id: number, dev_id: number, virt_id: bigint | number): number {
    const { result, out } = this.call(uapi.IOMMU_VDEVICE_ALLOC, { viommu_id, dev_id, virt_id });
    return result || out.out_vdevice_id;
  }

  /** The faults that are there now. */
  faults(fd: number) {
    const { size } = uapi.iommu_hwpt_pgfault;
    const bytes = new Uint8Array(16 * size);
    const length = this.kernel.read(fd, bytes);
    if (length < 0) throw new Error(`read gave ${length}`);
    return Array.from({ length: length / size }, (_, i) => uapi.iommu_hwpt_pgfault.decode(bytes, i * size));
  }
}

/** A mock device, a nesting parent of its address space, and a virtual IOMMU on that. */
export function virtualIommu(raw: RawIommu) {
  const ioas = raw.ioas();
  const ids = raw.device(ioas);
  const parent = raw.hwpt({ dev_id: ids.device, pt_id: ioas, flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  return { raw, ioas, ...ids, parent, viommu: raw.viommu(ids.device, parent) };
}

/** For `let raw = …` in each test: an iommufd that is closed when the test is over. */
export function useRawIommu(): () => RawIommu {
  let raw: RawIommu | undefined;
  beforeEach(() => {
    raw = new RawIommu();
  });
  afterEach(() => raw?.close());
  return () => {
    if (!raw) throw new Error('no test is running');
    return raw;
  };
}
