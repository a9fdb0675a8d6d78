/** Random calls about virtual IOMMUs and what hangs on them, and a world in which most of them work. */
import * as uapi from '../../../lib/uapi';
import type { Value } from '../program';
import type { Builder } from './builder';
import { hostileInteger } from './hostile';
import { SELFTEST } from './hwpt';
import { mapping, PAGE, remember } from './ioas';

export function viommuAlloc(builder: Builder): void {
  const { random } = builder;
  const mock = builder.hasObject('stdev');
  const offset = random.below(16) * 8;
  const withData = mock && !random.oneIn(3);
  const label = builder.ioctl(
    'IOMMU_VIOMMU_ALLOC',
    {
      flags: random.oneIn(20) ? random.below(4) : 0,
      type: mock && !random.oneIn(10) ? SELFTEST.viommu : random.below(4),
      dev_id: builder.id('device'),
      hwpt_id: random.oneIn(8) ? builder.id('hwpt') : builder.id('parent'),
      data_len: withData ? (random.oneIn(10) ? random.below(40) : 24) : 0,
      data_uptr: withData ? { at: 'scratch', offset } : 0,
    },
    { scratch: [{ offset, width: 4, values: [random.bits(), 0, 0, 0, 0, 0] }] },
  );
  builder.made('viommu', label, 'out_viommu_id');
}

export function vdeviceAlloc(builder: Builder): void {
  const { random } = builder;
  const label = builder.ioctl('IOMMU_VDEVICE_ALLOC', {
    viommu_id: builder.id('viommu'),
    dev_id: builder.id('device'),
    virt_id: random.oneIn(10) ? hostileInteger(random, 8) : random.below(4),
  });
  builder.made('vdevice', label, 'out_vdevice_id');
}

export function veventqAlloc(builder: Builder): void {
  const { random } = builder;
  const label = builder.ioctl('IOMMU_VEVENTQ_ALLOC', {
    flags: 0,
    viommu_id: builder.id('viommu'),
    type: builder.hasObject('stdev') && !random.oneIn(10) ? SELFTEST.veventq : random.below(4),
    veventq_depth: random.oneIn(20) ? hostileInteger(random, 4) : random.pick([1, 1, 2, 2, 4]),
  });
  builder.made('veventq', label, 'out_veventq_id');
  builder.file('veventq', label);
}

export function hwQueueAlloc(builder: Builder): void {
  const { random } = builder;
  const found = random.oneIn(2) ? builder.mappings.at(0) : mapping(builder);
  const start = random.oneIn(6) ? random.pick([0x10, 0x800, 0x1000]) : 0;
  const label = builder.ioctl('IOMMU_HW_QUEUE_ALLOC', {
    viommu_id: builder.id('viommu'),
    type: builder.hasObject('stdev') && !random.oneIn(10) ? SELFTEST.hwQueue : random.below(3),
    index: random.below(random.oneIn(8) ? 4 : 2),
    nesting_parent_iova: found?.at(start) ?? uapi.MOCK_APERTURE_START,
    length: random.oneIn(20) ? 0 : random.pick([0x800, 0x1000, 0x1000, 0x2000, 0x5000]),
  });
  builder.made('queue', label, 'out_hw_queue_id');
}

/** A nested table on the virtual IOMMU, and the device on it. */
function attach(builder: Builder, viommu: Value, device: Value, stdev: Value): void {
  const scratch = [{ offset: 0, width: 4 as const, values: [7, 0] }];
  const data = {
    data_type: SELFTEST.hwptData,
    data_len: 8,
    data_uptr: { at: 'scratch', offset: 0 } as const,
  };
  const fields = { dev_id: device, pt_id: viommu, ...data };
  const nested = { of: builder.exactly('IOMMU_HWPT_ALLOC', fields, { scratch }), field: 'out_hwpt_id' };
  builder.made('nested', nested.of, nested.field);
  const op = uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE;
  builder.exactly('IOMMU_TEST_CMD', { op, id: stdev, 'mock_domain_replace.pt_id': nested });
}

/** Memory for hardware queues: two mappings side by side, whose memory is side by side now and then. */
function mapQueues(builder: Builder, ioas: Value): void {
  const { random } = builder;
  const length = 2 * PAGE;
  const flags = uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE;
  for (const [i, page] of [random.below(8), random.pick([2, 4, 9])].entries()) {
    const iova = uapi.MOCK_APERTURE_START + i * length;
    const user_va = { at: 'data', offset: page * PAGE } as const;
    const label = builder.exactly('IOMMU_IOAS_MAP', { flags, ioas_id: ioas, iova, length, user_va });
    remember(builder, { label, ioas, field: 'iova', fixed: iova }, length);
  }
}

/** A mock device behind a virtual IOMMU, as far as chance goes. The iommufd and an address space are there. */
export function makeWorld(builder: Builder, ioas: Value): void {
  const { random } = builder;
  const mock = builder.exactly('IOMMU_TEST_CMD', { op: uapi.IOMMU_TEST_OP_MOCK_DOMAIN, id: ioas });
  const stdev = builder.made('stdev', mock, 'mock_domain.out_stdev_id');
  const device = builder.made('device', mock, 'mock_domain.out_idev_id');
  const flags = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
  const table = builder.exactly('IOMMU_HWPT_ALLOC', { dev_id: device, pt_id: ioas, flags });
  const parent = builder.made('parent', table, 'out_hwpt_id');
  if (!random.oneIn(4)) mapQueues(builder, ioas);
  if (random.oneIn(8)) return;
  const fields = { type: SELFTEST.viommu, dev_id: device, hwpt_id: parent };
  const data = random.oneIn(2) ? { data_len: 24, data_uptr: { at: 'scratch', offset: 0 } as const } : {};
  const made = builder.exactly('IOMMU_VIOMMU_ALLOC', { ...fields, ...data });
  const viommu = builder.made('viommu', made, 'out_viommu_id');
  if (!random.oneIn(4)) {
    const virt_id = random.below(4);
    const vdevice = builder.exactly('IOMMU_VDEVICE_ALLOC', { viommu_id: viommu, dev_id: device, virt_id });
    builder.made('vdevice', vdevice, 'out_vdevice_id');
  }
  if (!random.oneIn(4)) attach(builder, viommu, device, stdev);
  if (!random.oneIn(3)) veventqAlloc(builder);
}
