/** Operations of IOMMU_TEST_CMD on access objects, each behind a file descriptor. */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import { OpenFile } from '../file';
import * as layout from '../mock/layout';
import { PAGE_SIZE } from '../user-memory';
import { Access, type PinnedRange } from './access';
import { Ioas } from './ioas';
import { convertIova } from './selftest-iova';
import type { TestCommand } from './selftest';

const PAGE = BigInt(PAGE_SIZE);
/** Most bytes that one operation reads, writes or pins. */
const MOST_BYTES = 16n << 20n;
/** "Invalid exchange": the memory at the IOVA is not the memory at the address. */
const EBADE = 52;

/** The file of an access, and what was pinned through it. Closing it ends the access. */
class AccessFile extends OpenFile {
  readonly target: Access;
  readonly #pinned = new Map<number, PinnedRange>();
  #nextId = 0;

  constructor(
    context: TestCommand['file'],
    readonly pinsPages: boolean,
  ) {
    super();
    this.target = new Access(context, pinsPages, (iova, length) => this.#release(iova, length));
  }

  /** Keeps a pinned range until it is let go. Returns its id, which no other range of the file gets again. */
  keep(range: PinnedRange): number {
    this.#pinned.set(this.#nextId, range);
    return this.#nextId++;
  }

  /** False: there is no such range any more. */
  letGo(id: number): boolean {
    this.#pinned.get(id)?.unpin();
    return this.#pinned.delete(id);
  }

  protected override release(): void {
    for (const id of [...this.#pinned.keys()]) this.letGo(id);
    this.target.close();
  }

  #release(iova: bigint, length: bigint): void {
    const last = iova + length - 1n;
    for (const [id, range] of this.#pinned) if (range.iova <= last && range.last >= iova) this.letGo(id);
  }
}

function createAccess(command: TestCommand): number {
  const { file, values } = command;
  const { flags } = values.create_access;
  if (flags & ~layout.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES) return -errno.EOPNOTSUPP;
  const opened = new AccessFile(file, flags !== 0).get();
  file.objects.add(opened.target);
  const ioas = file.objects.get(values.id, Ioas);
  const result = ioas ? opened.target.change(ioas) : -errno.ENOENT;
  const fd = result || command.process.install(opened);
  opened.put();
  // Linux says ENOMEM, whatever the reason that there is no descriptor.
  if (fd < 0) return result || -errno.ENOMEM;
  return command.respond({ create_access: { out_access_fd: fd } });
}

/** Runs an operation on the access whose descriptor is `id`. */
function onAccess(run: (command: TestCommand, file: AccessFile) => number) {
  return (command: TestCommand) => {
    const file = command.process.file(command.values.id);
    return file instanceof AccessFile ? run(command, file) : -errno.EBADFD;
  };
}

function replaceIoas({ file, values }: TestCommand, { target }: AccessFile): number {
  const ioas = file.objects.get(values.access_replace_ioas.ioas_id, Ioas);
  return ioas ? target.change(ioas) : -errno.ENOENT;
}

function pinPages(command: TestCommand): number {
  const { length, flags } = command.values.access_pages;
  if (length > MOST_BYTES) return -errno.ENOMEM;
  if (flags & ~(layout.MOCK_FLAGS_ACCESS_WRITE | layout.MOCK_FLAGS_ACCESS_SYZ)) return -errno.EOPNOTSUPP;
  return onAccess(pinPagesOf)(command);
}

function pinPagesOf(command: TestCommand, file: AccessFile): number {
  const { iova, length, flags, uptr } = command.values.access_pages;
  if (!file.pinsPages) return -errno.EOPNOTSUPP;
  const start = flags & layout.MOCK_FLAGS_ACCESS_SYZ ? convertIova(file.target.ioas?.table, iova) : iova;
  const range = file.target.pin(start, length, (flags & layout.MOCK_FLAGS_ACCESS_WRITE) !== 0);
  if (typeof range === 'number') return range;
  const result = uptr === 0n ? 0 : comparePages(command, uptr - (start % PAGE), range.physical);
  if (result) {
    range.unpin();
    return result;
  }
  return command.respond({ access_pages: { out_access_pages_id: file.keep(range) } });
}

function comparePages({ memory }: TestCommand, address: bigint, physical: readonly number[]): number {
  for (const [i, expected] of physical.entries()) {
    const page = BigInt.asUintN(64, address + BigInt(i) * PAGE);
    const pin = memory.pin(page - (page % PAGE), PAGE);
    if (!pin) return -errno.EFAULT;
    pin.unpin();
    if (pin.physical !== expected) return -EBADE;
  }
  return 0;
}

function unpinPages({ values }: TestCommand, file: AccessFile): number {
  return file.letGo(values.destroy_access_pages.access_pages_id) ? 0 : -errno.ENOENT;
}

const RW_FLAGS = layout.MOCK_ACCESS_RW_WRITE | layout.MOCK_ACCESS_RW_SLOW_PATH | layout.MOCK_FLAGS_ACCESS_SYZ;

function readOrWrite(command: TestCommand): number {
  const { length, flags } = command.values.access_rw;
  if (length > MOST_BYTES) return -errno.ENOMEM;
  if (flags & ~RW_FLAGS) return -errno.EOPNOTSUPP;
  return onAccess(readOrWriteOf)(command);
}

function readOrWriteOf({ memory, process, values }: TestCommand, { target }: AccessFile): number {
  const { iova, length, uptr, flags } = values.access_rw;
  const write = (flags & layout.MOCK_ACCESS_RW_WRITE) !== 0;
  const data = write ? memory.read(uptr, Number(length)) : new Uint8Array(Number(length));
  if (!data) return -errno.EFAULT;
  const start = flags & layout.MOCK_FLAGS_ACCESS_SYZ ? convertIova(target.ioas?.table, iova) : iova;
  const slow = (flags & layout.MOCK_ACCESS_RW_SLOW_PATH) !== 0;
  const result = target.copy(start, data, write, slow ? undefined : process.memory);
  if (result || write) return result;
  return memory.write(uptr, data) ? 0 : -errno.EFAULT;
}

export const accessOperations = [
  [test.IOMMU_TEST_OP_CREATE_ACCESS, createAccess],
  [test.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, onAccess(replaceIoas)],
  [test.IOMMU_TEST_OP_ACCESS_PAGES, pinPages],
  [test.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, onAccess(unpinPages)],
  [test.IOMMU_TEST_OP_ACCESS_RW, readOrWrite],
] as const;
