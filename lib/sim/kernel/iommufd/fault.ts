/** FAULT objects: queues of page faults behind a file descriptor (drivers/iommu/iommufd/eventq.c's role). */
import { POLLIN, POLLOUT, POLLRDNORM } from '../../../kernel';
import { errno } from '../../../uapi/errno';
import {
  IOMMUFD_PAGE_RESP_INVALID,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../../uapi/iommufd';
import { IOMMU_FAULT_QUEUE_ALLOC } from '../../../uapi/iommufd-ioctls';
import type { AttachHandle } from '../iommu/core';
import type { FaultGroup } from '../iommu/page-fault';
import { handler, type Command, type Handler } from './command';
import { EventQueue } from './eventq';

const FIRST_COOKIE = 1;

/** A group in the queue, with the id under which its device was bound when the fault came. */
interface Queued {
  readonly group: FaultGroup;
  readonly deviceId: number;
}

/** Closing its file answers nothing. */
export class FaultObject extends EventQueue {
  #deliver: Queued[] = [];
  /** By cookie: groups that user space has read and not answered. */
  readonly #pending: (FaultGroup | undefined)[] = [];
  /** Every cookie below this one is in use. */
  #lowestFree = FIRST_COOKIE;

  /** Queues a complete group. */
  deliver(group: FaultGroup, deviceId: number): void {
    this.#deliver.push({ group, deviceId });
    this.notify();
  }

  poll(): number {
    return POLLOUT | (this.#deliver.length > 0 ? POLLIN | POLLRDNORM : 0);
  }

  /** The attachment ends: whatever it queued, read or not, is answered "invalid". */
  answerFaultsOf(handle: AttachHandle): void {
    const mine = this.#deliver.filter(({ group }) => group.handle === handle);
    this.#deliver = this.#deliver.filter(({ group }) => group.handle !== handle);
    for (const { group } of mine) group.respond(IOMMUFD_PAGE_RESP_INVALID);
    for (let cookie = FIRST_COOKIE; cookie < this.#pending.length; cookie++)
      if (this.#pending[cookie]?.handle === handle) this.#take(cookie)?.respond(IOMMUFD_PAGE_RESP_INVALID);
  }

  destroy(): void {
    for (const { group } of this.#deliver.splice(0)) group.respond(IOMMUFD_PAGE_RESP_INVALID);
    for (let cookie = FIRST_COOKIE; cookie < this.#pending.length; cookie++)
      this.#take(cookie)?.respond(IOMMUFD_PAGE_RESP_INVALID);
  }

  /** read(2): whole groups, as many as fit. A group gets its cookie here. */
  read(bytes: Uint8Array): number {
    if (bytes.length % iommu_hwpt_pgfault.size) return -errno.ESPIPE;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let done = 0;
    while (this.#deliver.length > 0) {
      const [{ group, deviceId }] = this.#deliver;
      if (group.faults.length * iommu_hwpt_pgfault.size > bytes.length - done) return done || -errno.EINVAL;
      this.#deliver.shift();
      const cookie = this.#keep(group);
      for (const fault of group.faults) {
        iommu_hwpt_pgfault.write(view, done, {
          flags: fault.flags,
          dev_id: deviceId,
          pasid: fault.pasid,
          grpid: fault.grpid,
          perm: fault.permissions,
          __reserved: 0,
          addr: fault.address,
          length: 0,
          cookie,
        });
        done += iommu_hwpt_pgfault.size;
      }
    }
    return done;
  }

  /** write(2): responses until the first that is wrong; the bytes taken, or the error of the first. */
  override write(bytes: Uint8Array): number {
    const size = iommu_hwpt_page_response.size;
    if (bytes.length % size) return -errno.ESPIPE;
    let done = 0;
    for (; done < bytes.length; done += size) {
      const { cookie, code } = iommu_hwpt_page_response.decode(bytes, done);
      const group = code <= IOMMUFD_PAGE_RESP_INVALID ? this.#take(cookie) : undefined;
      if (!group) return done || -errno.EINVAL;
      group.respond(code);
    }
    return done;
  }

  /** The group waits for its answer from now on. Returns its cookie, the lowest that is free. */
  #keep(group: FaultGroup): number {
    const cookie = this.#lowestFree;
    this.#pending[cookie] = group;
    do this.#lowestFree++;
    while (this.#pending[this.#lowestFree] !== undefined);
    return cookie;
  }

  /** The group of a cookie, which is free again; undefined: nothing waits under this one. */
  #take(cookie: number): FaultGroup | undefined {
    const group = cookie < this.#pending.length ? this.#pending[cookie] : undefined;
    if (group === undefined) return undefined;
    this.#pending[cookie] = undefined;
    this.#lowestFree = Math.min(this.#lowestFree, cookie);
    return group;
  }
}

function alloc(command: Command<typeof IOMMU_FAULT_QUEUE_ALLOC.struct>): number {
  if (command.values.flags) return -errno.EOPNOTSUPP;
  const fault = new FaultObject();
  const fd = fault.open(command);
  if (fd < 0) return fd;
  command.file.objects.add(fault);
  return command.respond({ out_fault_id: fault.id, out_fault_fd: fd });
}

export const faultHandlers: readonly Handler[] = [handler(IOMMU_FAULT_QUEUE_ALLOC, alloc)];
