import type { NvmeDriver } from '../../../examples/drivers/nvme/driver';
import { stress } from '../../../examples/drivers/nvme/stress';

test.each([{ depth: NaN }, { depth: 0 }, { depth: -5 }, { bytes: 1.5 }, { bytes: 0 }, { seed: NaN }])(
  'numbers that make no sense are refused before a disk is touched: %j',
  async (wrong) => {
    const disk = {} as NvmeDriver;
    await expect(stress(disk, { bytes: 512, seed: 1, ...wrong })).rejects.toThrow(RangeError);
  },
);
