/** DMA-bufs: memory behind a descriptor, which its exporter can take back (include/linux/dma-buf.h). */
import { POLLIN, POLLOUT } from '../../kernel';
import { errno } from '../../uapi/errno';
import { OpenFile } from './file';

/** Who uses the memory of a DMA-buf (dma_buf_attachment). */
export interface DmaBufImporter {
  /** The memory is taken back: nothing may reach it any more when this returns. */
  revoke(): void;
}

export abstract class DmaBuf extends OpenFile {
  readonly #importers = new Set<DmaBufImporter>();

  /** `length` in bytes. */
  constructor(readonly length: number) {
    super();
  }

  /** Physical address of the first byte; the others follow it. Or -errno where iommufd cannot have the memory. */
  abstract get physical(): number;

  /** Tells an importer when the memory is taken back, until `detach`. */
  attach(importer: DmaBufImporter): void {
    this.#importers.add(importer);
  }

  detach(importer: DmaBufImporter): void {
    this.#importers.delete(importer);
  }

  /** Takes the memory back from everybody (dma_buf_invalidate_mappings). */
  protected invalidate(): void {
    for (const importer of this.#importers) importer.revoke();
  }

  /** Programs cannot read or map it; IOMMU_IOAS_MAP_FILE is what it is for. */
  override mmap(): number {
    return -errno.EINVAL;
  }
  override get seekable(): boolean {
    return false;
  }
  override poll(): number {
    return POLLIN | POLLOUT;
  }
  override get pollable(): boolean {
    return true;
  }
}
