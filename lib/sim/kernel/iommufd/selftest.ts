/**
 * IOMMU_TEST_CMD: how tests drive the selftest IOMMU, and look inside (drivers/iommu/iommufd/selftest.c's role).
 * Kernels built with CONFIG_IOMMUFD_TEST answer it, and machines made with `selftest`.
 */
import { errno } from '../../../uapi/errno';
import * as test from '../../../uapi/iommufd-test';
import { handler, type Command, type Handler } from './command';
import { dmabufOperations } from './selftest-dmabuf';
import { accessOperations } from './selftest-access';
import { checkOperations } from './selftest-checks';
import { deviceOperations } from './selftest-device';

export type TestCommand = Command<typeof test.IOMMU_TEST_CMD.struct>;

/** Smallest limit for the kernel's temporary memory: one element of its lists of pages. */
const LEAST_MEMORY_LIMIT = 12;

const operations: ReadonlyMap<number, (command: TestCommand) => number> = new Map([
  ...deviceOperations,
  ...checkOperations,
  ...accessOperations,
  ...dmabufOperations,
  [test.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, setMemoryLimit],
]);

/** The limit shapes how Linux batches its work on pages, never what comes out: there is nothing to set here. */
function setMemoryLimit({ values }: TestCommand): number {
  return values.memory_limit.limit < LEAST_MEMORY_LIMIT ? -errno.EINVAL : 0;
}

export const selftestHandler: Handler = handler(
  test.IOMMU_TEST_CMD,
  (command) => operations.get(command.values.op)?.(command) ?? -errno.EOPNOTSUPP,
);
