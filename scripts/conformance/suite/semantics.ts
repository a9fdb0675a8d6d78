/** The rules of I/O address spaces and devices that are easy to get wrong, each as a sequence. */
import * as uapi from '../../../lib/uapi';
import type { Literal, Sequence } from '../program';
import { data, PAGE, RW, script, scratch, u64 } from './world';

const MAX = '0xffffffffffffffff';
const READABLE = uapi.IOMMU_IOAS_MAP_READABLE;

const objects = script('ids: lowest free, reused, none burnt by a failure', (s) => {
  const ids = [s.ioas(), s.ioas(), s.ioas()];
  s.destroy(ids[1]);
  s.destroy(ids[1]);
  s.call('IOMMU_IOAS_ALLOC', { flags: 1 });
  s.ioas();
  s.ioas();
  const { fd, id } = s.faultQueue();
  s.destroy(id);
  s.close(fd);
  s.destroy(id);
  s.destroy(0);
});

const mapOrder = script('MAP: the order of complaints', (s) => {
  const ioas = s.ioas();
  s.map(99, 0x1_0000, PAGE, { flags: 8 });
  s.map(99, 0x1_0000, PAGE, { __reserved: 1 });
  s.map(99, MAX, PAGE, { flags: 1 });
  s.map(99, MAX, PAGE, { flags: RW });
  s.map(99, 0, MAX, { flags: 1 });
  s.map(99, 0x1_0000, PAGE, { flags: 1 });
  s.map(99, 0x1_0000, 0);
  s.map(ioas, 0x1_0000, 0);
  s.map(ioas, 0x1_0000, PAGE, { user_va: MAX });
  s.map(ioas, 0x1_0000, PAGE);
  s.map(ioas, 0x1_0000, PAGE);
  s.map(ioas, 0x1_0800, PAGE, { user_va: data(1) });
  s.map(ioas, '0xfffffffffffff000', 0x2000);
  s.map(ioas, 1, 1, { user_va: data(1) });
  s.map(ioas, 0x8000_0000, PAGE, { user_va: 0x1000 });
});

const automatic = script('MAP: automatic addresses', (s) => {
  const ioas = s.ioas();
  const lengths: Literal[] = [
    PAGE,
    2 * PAGE,
    1,
    0x800,
    2 ** 21,
    3 * PAGE,
    '0x7fffffffffffffff',
    '0x7ffffffffffffffe',
  ];
  const offsets = [0, 0x801, PAGE, 3 * PAGE, 0x10, 2 ** 20];
  for (const length of lengths)
    for (const offset of offsets) s.map(ioas, 0, length, { flags: RW, user_va: data(offset) });
  s.map(ioas, 0, PAGE, { flags: RW, user_va: 0 });
  s.unmap(ioas, 0, MAX);
});

const full = script('MAP: no room between the allowed addresses', (s) => {
  const ioas = s.ioas();
  const allow = (...ranges: Literal[]) =>
    s.call(
      'IOMMU_IOAS_ALLOW_IOVAS',
      { ioas_id: ioas, num_iovas: ranges.length / 2, allowed_iovas: scratch(0) },
      { scratch: [u64(0, ranges)] },
    );
  allow(0x10_0000, 0x10_1fff);
  for (let i = 0; i < 3; i++) s.map(ioas, 0, PAGE, { flags: RW });
  s.map(ioas, 0x50_0000, PAGE);
  allow(0x10_0000, 0x10_0000);
  allow(0x20_0000, 0x10_0000);
  allow(0x10_0000, 0x10_ffff, 0x10_8000, 0x11_0000);
  allow(0, MAX);
  allow();
  s.map(ioas, 0, PAGE, { flags: RW });
});

const unmapping = script('UNMAP: what goes and what stays', (s) => {
  const ioas = s.ioas();
  s.unmap(ioas, 0, MAX);
  s.unmap(ioas, 0, 0);
  s.unmap(ioas, MAX, 2);
  s.unmap(ioas, 0x1_0000, PAGE);
  for (const at of [0x1_0000, 0x1_2000, 0x1_4000]) s.map(ioas, at, 2 * PAGE);
  s.unmap(ioas, 0x1_0000, 5 * PAGE);
  s.unmap(ioas, 0x1_0000, PAGE);
  s.unmap(ioas, 0x1_4000, PAGE);
  s.unmap(ioas, 0x1_5000, PAGE);
  s.unmap(ioas, 0, 0x100_0000);
  s.map(ioas, 0x1_0000, PAGE);
  s.map(ioas, 0x2_0000, PAGE);
  s.unmap(ioas, 0x8000, 0x1_9000);
  s.unmap(ioas, 0, MAX);
});

const copying = script('COPY: sub-ranges, spans, holes, permissions', (s) => {
  const [from, to] = [s.ioas(), s.ioas()];
  const copy = (src_iova: Literal, length: Literal, dst_iova: Literal, flags = 7, dst_ioas_id = to) =>
    s.call('IOMMU_IOAS_COPY', { flags, dst_ioas_id, src_ioas_id: from, length, dst_iova, src_iova });
  s.map(from, 0x1_0000, 2 * PAGE);
  s.map(from, 0x1_2000, 2 * PAGE, { user_va: data(0x8000) });
  s.map(from, 0x2_0000, PAGE, { flags: READABLE | 1 });
  copy(0x1_0000, 4 * PAGE, 0x10_0000);
  copy(0x1_1000, 2 * PAGE, 0x20_0000);
  copy(0x1_0800, 0x100, 0x30_0000);
  copy(0x1_3000, 2 * PAGE, 0x40_0000);
  copy(0x2_0000, PAGE, 0x50_0000);
  copy(0x2_0000, PAGE, 0x50_0000, READABLE | 1);
  copy(0x1_0000, PAGE, 0, RW);
  copy(0x5_0000, PAGE, 0x60_0000, 7, 99);
  copy(0x1_0000, PAGE, 0x60_0000, 7, 99);
  copy(0x1_0000, 0, 0x60_0000);
  copy(0x1_0000, MAX, 0x60_0000);
  copy(0x1_0000, PAGE, 0x1_1000, 7, from);
  copy(0x1_0000, PAGE, 0x60_0000, 1);
  s.unmap(from, 0, MAX);
  s.unmap(to, 0, MAX);
});

const options = script('OPTION: which object, which value', (s) => {
  const option = (fields: Parameters<typeof s.call>[1]) => s.call('IOMMU_OPTION', fields);
  option({ option_id: 0, op: 1 });
  option({ option_id: 0, op: 0, val64: 1 });
  option({ option_id: 0, op: 1 });
  option({ option_id: 0, op: 0, val64: 2 });
  const ioas = s.ioas();
  option({ option_id: 0, op: 0, val64: 0 });
  option({ option_id: 0, op: 1, object_id: ioas });
  for (const object_id of [ioas, 0, 99])
    for (const [op, val64] of [
      [1, 0],
      [0, 0],
      [0, 2],
      [0, 1],
      [2, 0],
    ])
      option({ option_id: 1, op, val64, object_id });
  option({ option_id: 2, op: 1 });
  s.map(ioas, 0x1_0000, 1, { user_va: data(1) });
  option({ option_id: 1, op: 0, val64: 0, object_id: ioas });
});

const ranges = script('IOVA_RANGES: too few, none, a bad pointer', (s) => {
  const ioas = s.ioas();
  const device = s.bind();
  s.attach(ioas);
  for (const num_iovas of [0, 1, 2, 5])
    s.call('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas, allowed_iovas: scratch(16) });
  s.call('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: 2, allowed_iovas: 0x1000 });
  s.hwpt(device, ioas);
  s.call('IOMMU_IOAS_IOVA_RANGES', { ioas_id: device, num_iovas: 2, allowed_iovas: scratch(16) });
});

const deferred = script('attach: what MAP let pass', (s) => {
  const [bad, good, file] = [s.ioas(), s.ioas(), s.ioas()];
  s.bind();
  s.map(bad, 0x10_0000, PAGE, { user_va: 0x1000 });
  s.map(good, 0x10_0000, 2 * PAGE);
  const fields = { flags: 7, ioas_id: file, iova: 0x10_0000, length: PAGE, fd: { fd: 'memfd' } } as const;
  s.call('IOMMU_IOAS_MAP_FILE', { ...fields, start: 2 ** 21 });
  s.attach(bad);
  s.attach(file);
  s.attach(good);
  s.attach(bad);
  s.map(good, 0x20_0000, PAGE, { user_va: 0x1000 });
  s.map(good, 0xfee0_0000, PAGE);
  s.map(good, 0x20_0800, PAGE);
  s.map(good, '0x8000000000', PAGE);
  s.call('IOMMU_IOAS_MAP_FILE', { ...fields, ioas_id: good, iova: 0x30_0000, fd: '-1' });
  s.call('IOMMU_IOAS_MAP_FILE', { ...fields, ioas_id: good, iova: 0x30_0000, fd: { fd: s.iommufd } });
  s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', {});
  s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', {});
  s.destroy(good);
});

const attaching = script('attach, replace, detach, PASIDs', (s) => {
  const [ioas, other] = [s.ioas(), s.ioas()];
  const device = s.bind();
  const automaticHwpt = { of: s.attach(ioas), field: 'pt_id' };
  s.attach(ioas);
  s.attach(other);
  s.destroy(automaticHwpt);
  const hwpt = s.hwpt(device, ioas);
  s.attach(hwpt);
  s.attach(hwpt);
  s.destroy(hwpt);
  s.attach(device);
  s.attach(99);
  s.destroy(device);
  const withPasid = s.hwpt(device, ioas, uapi.IOMMU_HWPT_ALLOC_PASID);
  const pasid = (pt_id: typeof hwpt, number: number) =>
    s.call('VFIO_DEVICE_ATTACH_IOMMUFD_PT', { flags: 1, pt_id, pasid: number });
  pasid(withPasid, 1);
  s.attach(withPasid);
  pasid(withPasid, 1);
  pasid(hwpt, 2);
  pasid(ioas, 3);
  pasid(withPasid, 0);
  pasid(withPasid, 0x10_0000);
  s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', { flags: 1, pasid: 1 });
  s.call('VFIO_DEVICE_DETACH_IOMMUFD_PT', {});
  s.destroy(withPasid);
});

const binding = script('BIND: which descriptor, how often', (s) => {
  const early = s.ioas();
  s.bind();
  s.attach(early);
  const fds = [{ fd: s.iommufd }, '-1', { fd: 'memfd' }, { fd: s.device }, 0x7fff_fff0] as const;
  for (const iommufd of fds) s.call('VFIO_DEVICE_BIND_IOMMUFD', { iommufd });
  const second = s.builder.add({ op: 'open', path: '/dev/vfio/devices/vfio0' });
  for (const iommufd of fds) s.call('VFIO_DEVICE_BIND_IOMMUFD', { iommufd }, { fd: second });
  for (const request of ['VFIO_DEVICE_GET_INFO', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', 'VFIO_DEVICE_RESET'])
    s.call(request, {}, { fd: second });
  s.close(s.iommufd);
  s.call('VFIO_DEVICE_GET_INFO', {});
  s.close(s.device);
  s.call('VFIO_DEVICE_BIND_IOMMUFD', { iommufd: { fd: s.iommufd } }, { fd: second });
});

const describing = script('VFIO: what a device says of itself', (s) => {
  s.bind();
  for (const argsz of [15, 16, 20, 24, 200]) s.call('VFIO_DEVICE_GET_INFO', { argsz });
  for (let index = 0; index < 11; index++) {
    s.call('VFIO_DEVICE_GET_REGION_INFO', { index });
    s.call('VFIO_DEVICE_GET_REGION_INFO', { index, argsz: 256 });
    s.call('VFIO_DEVICE_GET_IRQ_INFO', { index });
  }
  s.call('VFIO_DEVICE_RESET', {});
});

const configuration = script('VFIO: configuration space', (s) => {
  s.bind();
  const base = uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;
  const read = (offset: number, length: number) =>
    s.builder.add({ op: 'pread', fd: s.device, offset: base + offset, length });
  for (let offset = 0; offset < 256; offset += 4) read(offset, 4);
  for (const [offset, length] of [
    [0xfe, 4],
    [0x100, 4],
    [0x1000, 4],
    [0, 0],
    [1, 7],
    [0, 256],
  ])
    read(offset, length);
  // What the kernel keeps to itself: ids, class, BARs. Past the capabilities QEMU's own registers can be written.
  for (const offset of [0x00, 0x08, 0x10, 0x14, 0x2c, 0x30]) {
    const bytes = { offset: 0, width: 4, values: [0xffff_ffff] } as const;
    s.builder.add({ op: 'pwrite', fd: s.device, offset: base + offset, length: 4, bytes });
    read(offset, 4);
  }
});

const interrupts = script('VFIO: SET_IRQS', (s) => {
  s.bind();
  const eventfd = s.builder.add({ op: 'eventfd', initial: 0 });
  const irqs = (index: number, flags: number, count: number, words?: readonly (Literal | { fd: number })[]) =>
    s.call(
      'VFIO_DEVICE_SET_IRQS',
      { argsz: 20 + 4 * (words?.length ?? 0), flags, index, count },
      words ? { extra: { offset: 20, width: 4, values: words } } : {},
    );
  for (const index of [0, 1, 2, 3, 4, 5]) {
    irqs(index, 4 | 32, 1, [{ fd: eventfd }]);
    irqs(index, 1 | 32, 1);
    s.poll(eventfd);
    s.read(eventfd, 8, 8);
    for (const action of [8, 16]) irqs(index, 1 | action, 1);
    irqs(index, 4 | 32, 1, ['-1']);
    irqs(index, 1 | 32, 0);
    irqs(index, 1 | 32, 0);
    irqs(index, 4 | 32, 2, [{ fd: eventfd }, { fd: eventfd }]);
  }
});

export const semantics: readonly Sequence[] = [
  ...[objects, mapOrder, automatic, full, unmapping, copying, options, ranges, deferred, attaching, binding],
  ...[describing, configuration, interrupts],
];
