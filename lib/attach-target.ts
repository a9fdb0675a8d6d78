import type { BoundDevice } from './bound-device';
import { lowestFree, type Context } from './context';
import type { IommuError } from './errors';
import type { FaultQueue } from './fault-queue';
import { Handle } from './handle';
import type { PageTable } from './page-table';

/** One device, or one PASID of it, that uses an address space or a page table. */
export interface Attachment {
  readonly device: BoundDevice;
  /** undefined: the device's requests without PASID. */
  readonly pasid: number | undefined;
}

/** The attaching of one slot of a device, as a target carries it out. */
export interface AttachAttempt {
  readonly device: BoundDevice;
  /** Attaches a page table or IOAS by its object ID: 0 or more, or a negative errno. */
  attach(ptId: number): number;
  /** The error that a negative errno stands for. */
  failure(result: number, hint?: string): IommuError;
}

/** What devices and their PASIDs are attached to. */
export abstract class AttachTarget extends Handle {
  /** This Iommu's number for the address space: what fault reports carry. Lowest free from 1. */
  readonly ioasid: number;
  /** Whether PASIDs of a device can be attached. */
  readonly pasid: boolean;
  /** Where page faults of attached devices are reported. */
  readonly faults: FaultQueue | undefined;
  /** @internal */
  readonly context: Context;
  readonly #attachments = new Set<Attachment>();

  /** @internal Without `ioasid`, the lowest free one. */
  protected constructor(
    context: Context,
    options: { pasid: boolean; faults: FaultQueue | undefined; ioasid?: number | undefined },
  ) {
    super();
    this.context = context;
    this.pasid = options.pasid;
    this.faults = options.faults;
    this.ioasid = options.ioasid ?? lowestFree(context.ioasids);
  }

  /** The devices and PASIDs attached now. */
  get attachments(): readonly Attachment[] {
    return [...this.#attachments];
  }

  /** The kernel's IDs of the page tables that there are now, the kernel's own (of an IOAS) left out. For raw calls. */
  abstract get pageTableIds(): readonly number[];

  /**
   * @internal Attaches a device. Returns the page table used, undefined for one of the kernel's own. Throws IommuError
   * and leaves nothing behind.
   */
  abstract connect(attempt: AttachAttempt): PageTable | undefined;

  /** @internal Records an attachment. */
  addAttachment(attachment: Attachment): void {
    this.#attachments.add(attachment);
  }

  /** @internal The attachment is gone in the kernel. `table`: what it used, which does not count it any more. */
  removeAttachment(attachment: Attachment, _table: PageTable | undefined): void {
    this.#attachments.delete(attachment);
  }

  /** Steps that detach everybody. */
  protected detachments(): (() => void)[] {
    return this.attachments.map(
      ({ device, pasid }) =>
        () =>
          device.detach({ pasid }),
    );
  }
}
