/** Random IOMMU_TEST_CMDs: the kernel's mock devices, access objects and what they are asked. */
import * as uapi from '../../../lib/uapi';
import type { Fields, Literal, Value } from '../program';
import type { Builder } from './builder';
import { hostileInteger, hostilePointer } from './hostile';
import { mapping, SMALL_PAGES } from './ioas';

const PASIDS: readonly Literal[] = [0, 1, 2, 1024, 0xf_ffff, 0x10_0000];

function test(builder: Builder, op: number, id: Value, fields: Fields): number {
  return builder.ioctl('IOMMU_TEST_CMD', { op, id, ...fields });
}

/** Memory of the program, or of its mappings. */
function pointer(builder: Builder): Value {
  const { random } = builder;
  if (random.oneIn(15)) return hostilePointer(random);
  return {
    at: random.oneIn(3) ? 'data' : 'scratch',
    offset: random.below(16) * (random.oneIn(3) ? 16 : 4096),
  };
}

export function mockDomain(builder: Builder): void {
  const { random } = builder;
  const flags = random.oneIn(2);
  const dev_flags = random.pick([0, uapi.MOCK_FLAGS_DEVICE_NO_DIRTY, uapi.MOCK_FLAGS_DEVICE_PASID, 2, 5]);
  const member = flags ? 'mock_domain_flags' : 'mock_domain';
  const op = flags ? uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS : uapi.IOMMU_TEST_OP_MOCK_DOMAIN;
  const label = test(builder, op, builder.id('ioas'), flags ? { [`${member}.dev_flags`]: dev_flags } : {});
  builder.made('stdev', label, `${member}.out_stdev_id`);
  builder.made('device', label, `${member}.out_idev_id`);
  if (random.oneIn(3)) builder.made('hwpt', label, `${member}.out_hwpt_id`);
}

export function mockReplace(builder: Builder): void {
  const target = builder.random.oneIn(3) ? builder.id('ioas') : builder.id('hwpt', 'nested');
  test(builder, uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, builder.id('stdev'), {
    'mock_domain_replace.pt_id': target,
  });
}

export function addReserved(builder: Builder): void {
  const { random } = builder;
  const start = random.oneIn(8)
    ? hostileInteger(random, 8)
    : random.pick([0x100_0000, 0x110_4000, 0x4000_0000, 0x10_0000]);
  const length = random.oneIn(8) ? hostileInteger(random, 8) : random.pick([4096, 8192, 2 ** 20]);
  const fields = { 'add_reserved.start': start, 'add_reserved.length': length };
  test(builder, uapi.IOMMU_TEST_OP_ADD_RESERVED, builder.id('ioas'), fields);
}

export function checkMap(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  test(builder, uapi.IOMMU_TEST_OP_MD_CHECK_MAP, builder.id('hwpt'), {
    'check_map.iova': found?.at(0) ?? 0x100_0000,
    'check_map.length': found && !random.oneIn(4) ? found.length : 4096,
    'check_map.uptr': { at: 'data', offset: random.below(16) * 4096 },
  });
}

export function checkRefs(builder: Builder): void {
  const { random } = builder;
  test(builder, uapi.IOMMU_TEST_OP_MD_CHECK_REFS, 0, {
    'check_refs.length': random.pick([0, 4096, 8192, 100]),
    'check_refs.uptr': {
      at: 'scratch',
      offset: SMALL_PAGES + random.below(4) * 4096 + (random.oneIn(8) ? 8 : 0),
    },
    'check_refs.refs': random.below(3),
  });
}

export function createAccess(builder: Builder): void {
  const label = test(builder, uapi.IOMMU_TEST_OP_CREATE_ACCESS, builder.id('ioas'), {
    'create_access.flags': builder.random.oneIn(10) ? 2 : builder.random.below(2),
  });
  builder.file('access', label);
}

/** Access objects are named by their descriptor. */
function access(builder: Builder): Value {
  return { fd: builder.fd('access') };
}

export function replaceAccess(builder: Builder): void {
  const { random } = builder;
  const ioas = random.oneIn(4) ? 0 : builder.id('ioas');
  test(builder, uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, access(builder), {
    'access_replace_ioas.ioas_id': ioas,
  });
}

export function accessPages(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  const label = test(builder, uapi.IOMMU_TEST_OP_ACCESS_PAGES, access(builder), {
    'access_pages.flags': random.oneIn(8) ? hostileInteger(random, 4) : random.below(2),
    'access_pages.iova': found?.at(random.oneIn(5) ? 0x800 : 0) ?? 0x10_0000,
    'access_pages.length': random.oneIn(4) ? random.pick([1, 4096, 8192, 0]) : (found?.length ?? 4096),
    'access_pages.uptr': { at: 'data', offset: random.below(16) * 4096 },
  });
  builder.made('access', label, 'access_pages.out_access_pages_id');
}

export function destroyAccessPages(builder: Builder): void {
  test(builder, uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, access(builder), {
    'destroy_access_pages.access_pages_id': builder.id('access'),
  });
}

export function accessRw(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  test(builder, uapi.IOMMU_TEST_OP_ACCESS_RW, access(builder), {
    'access_rw.iova': found?.at(random.oneIn(3) ? random.below(4096) : 0) ?? 0x10_0000,
    'access_rw.length': random.pick([1, 8, 100, 4096, 4097, 0]),
    'access_rw.uptr': pointer(builder),
    'access_rw.flags': random.oneIn(10) ? random.below(16) : random.pick([0, 1, 4, 5]),
  });
}

export function dirty(builder: Builder): void {
  const { random } = builder;
  const found = mapping(builder);
  const uptr = random.below(64) * 8;
  builder.ioctl(
    'IOMMU_TEST_CMD',
    {
      op: uapi.IOMMU_TEST_OP_DIRTY,
      id: builder.id('hwpt'),
      'dirty.flags': random.oneIn(15) ? 1 : 0,
      'dirty.iova': found?.at(0) ?? 0x100_0000,
      'dirty.length': found?.length ?? 4096,
      'dirty.page_size': random.pick([4096, 2048, 2048, 0, 3000, 2 ** 20]),
      'dirty.uptr': random.oneIn(15) ? hostilePointer(random) : { at: 'scratch', offset: uptr },
    },
    { scratch: [{ offset: uptr, width: 4, values: [random.bits(), random.bits()] }] },
  );
}

export function checkIotlb(builder: Builder): void {
  const { random } = builder;
  test(builder, uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, builder.id('nested'), {
    'check_iotlb.id': random.below(random.oneIn(8) ? 8 : 4),
    'check_iotlb.iotlb': random.pick([7, 0]),
  });
}

export function checkCache(builder: Builder): void {
  const { random } = builder;
  test(builder, uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, builder.id('device'), {
    'check_dev_cache.id': random.below(random.oneIn(8) ? 8 : 4),
    'check_dev_cache.cache': random.pick([0xba_ddad, 0]),
  });
}

export function triggerFault(builder: Builder): void {
  const { random } = builder;
  test(builder, uapi.IOMMU_TEST_OP_TRIGGER_IOPF, 0, {
    'trigger_iopf.dev_id': builder.id('device'),
    'trigger_iopf.pasid': random.oneIn(3) ? random.pick(PASIDS) : 0,
    'trigger_iopf.grpid': random.below(4),
    'trigger_iopf.perm': random.below(16),
    'trigger_iopf.addr': random.oneIn(6) ? hostileInteger(random, 8) : 0x100_0000,
  });
}

export function triggerEvent(builder: Builder): void {
  test(builder, uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { 'trigger_vevent.dev_id': builder.id('device') });
}

export function pasid(builder: Builder): void {
  const { random } = builder;
  const stdev = builder.id('stdev');
  const number = random.pick(PASIDS);
  const target = random.oneIn(5) ? builder.id('ioas') : builder.id('hwpt', 'nested');
  switch (random.below(5)) {
    case 0:
    case 1:
      test(builder, uapi.IOMMU_TEST_OP_PASID_ATTACH, stdev, {
        'pasid_attach.pasid': number,
        'pasid_attach.pt_id': target,
      });
      return;
    case 2:
      test(builder, uapi.IOMMU_TEST_OP_PASID_REPLACE, stdev, {
        'pasid_replace.pasid': number,
        'pasid_replace.pt_id': target,
      });
      return;
    case 3:
      test(builder, uapi.IOMMU_TEST_OP_PASID_DETACH, stdev, { 'pasid_detach.pasid': number });
      return;
    default:
      test(builder, uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, stdev, {
        'pasid_check.pasid': number,
        'pasid_check.hwpt_id': random.oneIn(3) ? 0 : target,
      });
  }
}

export function dmabuf(builder: Builder): void {
  const { random } = builder;
  const none = !builder.files.some(({ kind }) => kind === 'dmabuf');
  if (none || random.oneIn(4)) {
    const label = test(builder, uapi.IOMMU_TEST_OP_DMABUF_GET, 0, {
      'dmabuf_get.length': random.pick([4096, 3 * 4096, 8192, 10_000, 0x8000, 0x20_0000, 0, 0x20_0001]),
      'dmabuf_get.open_flags': random.pick([0, 1, 2, 0o2000002]),
    });
    builder.file('dmabuf', label);
    return;
  }
  test(builder, uapi.IOMMU_TEST_OP_DMABUF_REVOKE, 0, {
    'dmabuf_revoke.dmabuf_fd': { fd: random.oneIn(8) ? 'memfd' : builder.fd('dmabuf') },
    'dmabuf_revoke.revoked': random.oneIn(4) ? 0 : random.pick([1, 1, 2]),
  });
}
