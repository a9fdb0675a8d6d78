/** Raw ioctls for the contract tests: one /dev/iommu, memory at a 2 MiB boundary, errno as names. */
import type { Kernel, Memory } from '../../lib/kernel';
import { EFD_NONBLOCK, O_RDWR } from '../../lib/kernel';
import { attempt } from '../../lib/ioctl';
import * as uapi from '../../lib/uapi';
import { EDU, kernel as sharedKernel, PAGE } from './support';

export const U64_MAX = 2n ** 64n - 1n;
export const FIXED = uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
export const WRITE = uapi.IOMMU_IOAS_MAP_WRITEABLE;
export const READ = uapi.IOMMU_IOAS_MAP_READABLE;
const HUGE_PAGE = 2n * 1024n * 1024n;
/** An address that no process has mapped: below vm.mmap_min_addr. */
export const UNMAPPED = 0x1000n;
const PAGE_SIZE = BigInt(PAGE);

/** 'EINVAL' for -22; anything from 0 on as it is. */
export function code(result: number): string | number {
  return result < 0 ? uapi.errnoName(result) : result;
}

type Encoded<S extends uapi.Struct> = Parameters<S['encode']>[0];
type Decoded<S extends uapi.Struct> = ReturnType<S['decode']>;

/** A number of pages as bytes. */
export function pages(count: number): bigint {
  return BigInt(count) * PAGE_SIZE;
}

export class Calls {
  fd = -1;
  readonly #memory: Memory;
  readonly #files: number[] = [];
  /** User virtual address, a multiple of 2 MiB; 6 MiB are mapped from there. */
  readonly base: bigint;
  /** Where struct iommu_iova_range lists are. */
  readonly #lists: bigint;

  constructor(readonly kernel: Kernel = sharedKernel()) {
    const memory = this.kernel.allocate(4 * Number(HUGE_PAGE));
    if (typeof memory === 'number') throw new Error(`allocate: ${code(memory)}`);
    this.#memory = memory;
    this.base = (memory.address + HUGE_PAGE - 1n) & ~(HUGE_PAGE - 1n);
    this.#lists = this.base + 2n * HUGE_PAGE;
  }

  /** The memory behind `base`. */
  get bytes(): Uint8Array {
    return this.#memory.bytes.subarray(Number(this.base - this.#memory.address));
  }

  /** A fresh /dev/iommu. */
  open(): void {
    this.fd = this.file('/dev/iommu');
  }

  /** Opens a file until `close`. */
  file(path: string, flags = O_RDWR): number {
    const fd = this.kernel.open(path, flags);
    if (fd < 0) throw new Error(`${path}: ${code(fd)}`);
    this.#files.push(fd);
    return fd;
  }

  /** The VFIO file of edu, or of another device; not bound. */
  vfio(bdf = EDU): number {
    const names = this.kernel.readdir(`/sys/bus/pci/devices/${bdf}/vfio-dev`);
    if (typeof names === 'number') throw new Error(`vfio-dev: ${code(names)}`);
    return this.file(`/dev/vfio/devices/${names[0]}`);
  }

  eventfd(initial = 0, flags = EFD_NONBLOCK): number {
    const fd = this.kernel.eventfd(initial, flags);
    if (fd < 0) throw new Error(`eventfd: ${code(fd)}`);
    this.#files.push(fd);
    return fd;
  }

  /** Closes one of them early. */
  shut(fd: number): void {
    this.#files.splice(this.#files.indexOf(fd), 1);
    this.kernel.close(fd);
  }

  /** Closes every file. */
  close(): void {
    for (const fd of this.#files.splice(0).reverse()) this.kernel.close(fd);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free();
  }

  call<S extends uapi.Struct>(
    fd: number,
    row: uapi.Ioctl<S>,
    values: Encoded<S>,
  ): { code: string | number; out: Decoded<S> } {
    const { result, out } = attempt(this.kernel, fd, row, values);
    return { code: code(result), out };
  }

  ioas(): number {
    return this.call(this.fd, uapi.IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
  }

  destroy(id: number) {
    return this.call(this.fd, uapi.IOMMU_DESTROY, { id }).code;
  }

  /** MAP at a fixed IOVA. */
  map(ioas_id: number, iova: bigint, user_va: bigint, length: bigint, flags = READ | WRITE) {
    const values = { ioas_id, iova, user_va, length, flags: flags | FIXED };
    return this.call(this.fd, uapi.IOMMU_IOAS_MAP, values).code;
  }

  /** MAP where there is room: the IOVA, or the error. */
  mapAnywhere(ioas_id: number, user_va: bigint, length: bigint, flags = READ): bigint | string | number {
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_IOAS_MAP, {
      ioas_id,
      user_va,
      length,
      flags,
    });
    return result === 0 ? out.iova : result;
  }

  /** The bytes unmapped, or the error. */
  unmap(ioas_id: number, iova: bigint, length: bigint): bigint | string | number {
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_IOAS_UNMAP, { ioas_id, iova, length });
    return result === 0 ? out.length : result;
  }

  copy(
    target: number,
    dst_iova: bigint,
    source: number,
    src_iova: bigint,
    length: bigint,
    flags = READ | WRITE | FIXED,
  ): bigint | string | number {
    const ids = { dst_ioas_id: target, src_ioas_id: source };
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_IOAS_COPY, {
      ...ids,
      dst_iova,
      src_iova,
      length,
      flags,
    });
    return result === 0 ? out.dst_iova : result;
  }

  allow(ioas_id: number, ranges: readonly (readonly [bigint, bigint])[]) {
    const view = new DataView(this.#memory.bytes.buffer, Number(this.#lists - this.#memory.address));
    ranges.forEach(([start, last], i) => uapi.iommu_iova_range.write(view, 16 * i, { start, last }));
    const values = { ioas_id, num_iovas: ranges.length, allowed_iovas: this.#lists };
    return this.call(this.fd, uapi.IOMMU_IOAS_ALLOW_IOVAS, values).code;
  }

  /** IOVA_RANGES with room for `room` ranges. */
  ranges(ioas_id: number, room = 8) {
    const values = { ioas_id, num_iovas: room, allowed_iovas: this.#lists };
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_IOAS_IOVA_RANGES, values);
    const at = Number(this.#lists - this.#memory.address);
    const found = Array.from({ length: Math.min(room, out.num_iovas) }, (_, i) => {
      const { start, last } = uapi.iommu_iova_range.decode(this.#memory.bytes, at + 16 * i);
      return [start, last] as const;
    });
    return { code: result, count: out.num_iovas, alignment: out.out_iova_alignment, found };
  }

  /** Binds the VFIO file; the device's id. */
  bind(vfio: number): number {
    const { code: result, out } = this.call(vfio, uapi.VFIO_DEVICE_BIND_IOMMUFD, { iommufd: this.fd });
    if (result !== 0) throw new Error(`bind: ${result}`);
    return out.out_devid;
  }

  /** The id of the HWPT used, or the error. */
  attach(vfio: number, pt_id: number): number | string {
    const { code: result, out } = this.call(vfio, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id });
    return result === 0 ? out.pt_id : result;
  }

  attachPasid(vfio: number, pasid: number, pt_id: number): number | string {
    const values = { flags: uapi.VFIO_DEVICE_ATTACH_PASID, pasid, pt_id };
    const { code: result, out } = this.call(vfio, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, values);
    return result === 0 ? out.pt_id : result;
  }

  detach(vfio: number) {
    return this.call(vfio, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, {}).code;
  }

  detachPasid(vfio: number, pasid: number) {
    const values = { flags: uapi.VFIO_DEVICE_DETACH_PASID, pasid };
    return this.call(vfio, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT, values).code;
  }

  /** The id, or the error. */
  hwpt(dev_id: number, pt_id: number, more: Encoded<typeof uapi.iommu_hwpt_alloc> = {}): number | string {
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_HWPT_ALLOC, { dev_id, pt_id, ...more });
    return result === 0 ? out.out_hwpt_id : result;
  }

  faultQueue(): { id: number; fd: number } {
    const { code: result, out } = this.call(this.fd, uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
    if (result !== 0) throw new Error(`fault queue: ${result}`);
    this.#files.push(out.out_fault_fd);
    return { id: out.out_fault_id, fd: out.out_fault_fd };
  }
}
