/**
 * DMA that does not snoop the processors' caches (RFC, section 1.5). A PCI Express device may ask for it; an IOMMU may be able
 * to make it snoop all the same; what is left needs KVM's help, for the guest's flushes of its caches then matter.
 */
import type { BoundDevice } from './bound-device';
import type { Context } from './context';
import { check, checkObject, failure, refusal, IommuError } from './errors';
import { EventStream } from './event-stream';
import type { WaitOptions } from './wait';
import { Handle, runAll } from './handle';
import { attemptRead, call } from './ioctl';
import { enforcesSnoop } from './iommu-device-info';
import { EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, type Watch } from './kernel';
import { propose } from './proposal';
import { errno } from './uapi';
import * as uapi from './uapi/proposal/no-snoop';

/**
 * Whether all DMA through an address space snoops. 'auto': where the IOMMU of a device can make it, as Linux does.
 * 'enable': a device whose IOMMU cannot is refused. 'disable': no; any device may attach.
 */
export type EnforceSnoop = 'auto' | 'enable' | 'disable';

const MODES: Readonly<Record<EnforceSnoop, number>> = {
  auto: uapi.IOMMU_IOASID_ENFORCE_SNOOP_AUTO,
  enable: uapi.IOMMU_IOASID_ENFORCE_SNOOP_ENABLE,
  disable: uapi.IOMMU_IOASID_ENFORCE_SNOOP_DISABLE,
};

/** Throws TypeError. */
export function checkEnforceSnoop(mode: EnforceSnoop = 'auto'): EnforceSnoop {
  if (!Object.hasOwn(MODES, mode))
    throw new TypeError(`enforceSnoop is 'enable', 'disable' or 'auto', not ${String(mode)}`);
  return mode;
}

/**
 * Sets what a new IOAS is to do. True: the kernel sees to it. False, for 'enable' on mainline: that enforces wherever an
 * IOMMU can, and which can has to be asked of each device. Throws IommuError EOPNOTSUPP for 'disable' there.
 */
export function setEnforceSnoop(context: Context, ioasId: number, mode: EnforceSnoop): boolean {
  if (mode === 'auto') return true;
  const row = uapi.IOMMU_IOASID_ENFORCE_SNOOP;
  try {
    const feature = 'address spaces that do not enforce snooping where the IOMMU can';
    const values = { ioas_id: ioasId, mode: MODES[mode] };
    propose(context, context.fd, row, values, { feature, hint: "leave enforceSnoop out, or 'auto'" });
    return true;
  } catch (error) {
    if (mode === 'enable' && isUnsupported(error)) return false;
    throw error;
  }
}

function isUnsupported(error: unknown): boolean {
  return error instanceof IommuError && error.code === 'EOPNOTSUPP';
}

/** Whether the IOMMU of a device can enforce snooping; undefined where nobody tells. Throws IommuError. */
function canEnforce(device: BoundDevice): boolean | undefined {
  try {
    return enforcesSnoop(device.hardwareInfo());
  } catch (error) {
    if (isUnsupported(error)) return undefined;
    throw error;
  }
}

/**
 * Throws EINVAL for a device whose IOMMU cannot enforce snooping. `kernelChecks`: the kernel does, where it is not told here;
 * else that is EOPNOTSUPP.
 */
export function requireEnforcement(device: BoundDevice, space: string, kernelChecks: boolean): void {
  const can = canEnforce(device);
  if (can || (can === undefined && kernelChecks)) return;
  const where = { request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT' };
  if (can === undefined)
    throw refusal(
      'EOPNOTSUPP',
      `Linux does not tell whether the IOMMU of ${device.name} can enforce snooping`,
      {
        ...where,
        hint: `${space} was made with enforceSnoop: 'enable'; with 'auto' it is enforced where it can be`,
      },
    );
  throw refusal('EINVAL', `the IOMMU of ${device.name} cannot enforce snooping, which ${space} does`, {
    ...where,
    hint: NOT_ENFORCING,
  });
}

/** What to do about a device that cannot be in an enforcing space. */
export const NOT_ENFORCING = "attach it to a space made with enforceSnoop: 'auto' or 'disable'";

/** VFIO_DEVICE_NO_SNOOP_HINT; `used` undefined takes the hint back. Throws IommuError EOPNOTSUPP. */
export function hintNoSnoop(context: Context, fd: number, used: boolean | undefined): void {
  const said = used ? uapi.VFIO_DEVICE_NO_SNOOP_USED : uapi.VFIO_DEVICE_NO_SNOOP_UNUSED;
  const values = { hint: used === undefined ? uapi.VFIO_DEVICE_NO_SNOOP_DEFAULT : said };
  const feature = 'saying whether a device uses no-snoop DMA';
  const hint = 'leave noSnoop out: every device counts whose IOMMU cannot enforce snooping';
  propose(context, fd, uapi.VFIO_DEVICE_NO_SNOOP_HINT, values, { feature, hint });
}

const QUERY = {
  feature: 'the query for no-snoop DMA of a whole /dev/iommu',
  hint: 'give KVM the device files (KVM_DEV_VFIO_FILE_ADD): it asks VFIO about each by itself',
};

/** IOMMU_NO_SNOOP_QUERY. Throws IommuError EOPNOTSUPP. */
export function needsNoSnoop(context: Context): boolean {
  return propose(context, context.fd, uapi.IOMMU_NO_SNOOP_QUERY, {}, QUERY).out_needed !== 0;
}

/**
 * Tells when the answer to "does any attached device need no-snoop handling?" changes: next(), or
 * `for await (const needed of watch)`. Changes between two looks come as one.
 */
export class NoSnoopWatch extends Handle implements AsyncIterable<boolean> {
  readonly #context: Context;
  readonly #eventfd: number;
  readonly #stream: EventStream<boolean>;
  #watch: Watch | undefined;

  /** @internal Use `iommu.watchNoSnoop()`. */
  constructor(context: Context) {
    super();
    this.#context = context;
    const { kernel, fd } = context;
    this.#eventfd = check(kernel.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), { syscall: 'eventfd' });
    this.#stream = new EventStream({ start: () => this.#start(), stop: () => this.#stop() });
    try {
      const values = { eventfd: this.#eventfd };
      propose(context, fd, uapi.IOMMU_NO_SNOOP_NOTIFY, values, QUERY);
    } catch (error) {
      kernel.close(this.#eventfd);
      throw error;
    }
  }

  /** @internal */
  override get label(): string {
    return 'the no-snoop watch';
  }

  /** The answer now. */
  get needed(): boolean {
    this.requireOpen({ request: uapi.IOMMU_NO_SNOOP_QUERY.name });
    return needsNoSnoop(this.#context);
  }

  /** The answer once it has changed. Rejects with IommuError EBADF (closed, also meanwhile), ETIMEDOUT, or the signal's reason. */
  async next(options: WaitOptions = {}): Promise<boolean> {
    this.requireOpen({ syscall: 'read' });
    const { value, done } = await this.#stream.next(options);
    if (done) throw this.closedError({ syscall: 'read' });
    return value;
  }

  /** Ends when the watch is closed. */
  [Symbol.asyncIterator](): AsyncIterableIterator<boolean, undefined> {
    return this.#stream.iterate(() => {});
  }

  #start(): void {
    const watch = this.#context.kernel.watch(this.#eventfd, POLLIN, () => this.#deliver());
    this.#watch = checkObject(watch, { syscall: 'poll' });
  }

  #stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  #deliver(): void {
    const result = attemptRead(this.#context.kernel, this.#eventfd, new Uint8Array(8));
    if (result === -errno.EAGAIN) return;
    if (result < 0) this.#stream.fail(failure(result, { syscall: 'read' }));
    else this.#stream.push(this.needed);
  }

  protected override release(): void {
    this.#stream.end();
    const { kernel, fd } = this.#context;
    runAll([
      () => this.#stop(),
      () => void call(kernel, fd, uapi.IOMMU_NO_SNOOP_NOTIFY, { eventfd: -1 }),
      () => void kernel.close(this.#eventfd),
    ]);
  }
}
