/** Whatever a program passes to ioctl, read or write: a number comes back, and the machine goes on. */
import fc from 'fast-check';
import type { SimulatedProcess } from '../../../lib/sim/kernel/process';
import * as uapi from '../../../lib/uapi';
import { Bench, PAGE, PROBE_BDF } from './bench';
import { ProbeFunction } from './probe-function';

const OTHER_BDF = '0000:00:07.0';

const word = fc.oneof(
  { weight: 6, arbitrary: fc.nat(8) },
  { weight: 2, arbitrary: fc.constantFrom(12, 16, 24, 32, 40, 48, 56, 64, 4096, 8192, 0xfee00000) },
  { weight: 1, arbitrary: fc.constantFrom(0xffffffff, 0x80000000, 0x7fffffff, 0xfffff000) },
  { weight: 1, arbitrary: fc.nat() },
);
const request = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0x3b64, max: 0x3bff }) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      ...[...uapi.iommufdIoctls, ...uapi.vfioIoctls, ...uapi.vfioContainerIoctls].map((r) => r.request),
    ),
  },
  { weight: 2, arbitrary: fc.constant(uapi.IOMMU_TEST_CMD.request) },
  { weight: 1, arbitrary: fc.nat() },
);
const bytes = fc
  .tuple(fc.array(word, { maxLength: 24 }), fc.boolean(), fc.nat(3))
  .map(([words, honest, cut]) => {
    const all = new Uint8Array(Uint32Array.from(words).buffer);
    const view = new DataView(all.buffer);
    // Mostly the first word is the struct's true size; sometimes it is not.
    if (honest && all.length >= 4) view.setUint32(0, all.length, true);
    return all.subarray(0, Math.max(all.length - cut, 0));
  });
const command = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('ioctl' as const), fd: fc.nat(9), request, bytes }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('number' as const), fd: fc.nat(9), request, at: word }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('read' as const, 'write' as const, 'pread' as const, 'pwrite' as const),
      fd: fc.nat(9),
      bytes,
      region: fc.nat(9),
      at: word,
    }),
  },
);

test('random calls never throw', () => {
  fc.assert(
    fc.property(fc.array(command, { minLength: 1, maxLength: 60 }), (commands) => {
      const probe = new ProbeFunction();
      const devices = { [PROBE_BDF]: probe, [OTHER_BDF]: new ProbeFunction() };
      const bench = new Bench({ devices, selftest: true }, probe);
      const { kernel, machine } = bench;
      bench.bind();
      const ioas = bench.ioas();
      bench.map(ioas, 0x1000, bench.memory(4 * PAGE).address, 4 * PAGE);
      bench.hwpt(ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
      bench.open('/dev/vfio/devices/vfio1');
      bench.eventfd();
      bench.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, {});
      for (const each of commands) {
        let result: number;
        if (each.kind === 'ioctl') result = kernel.ioctl(each.fd, each.request, each.bytes);
        else if (each.kind === 'number') result = kernel.ioctl(each.fd, each.request, each.at);
        else if (each.kind === 'read' || each.kind === 'write')
          result = kernel[each.kind](each.fd, each.bytes);
        else result = kernel[each.kind](each.fd, each.bytes, each.region * 2 ** 40 + each.at);
        expect(Number.isInteger(result)).toBe(true);
        expect(result).toBeGreaterThan(-256);
      }
      machine.idle();
      (kernel as SimulatedProcess).exit();
      for (const { owner, ownerCount } of machine.system.groups)
        expect([owner, ownerCount]).toEqual([undefined, 0]);
    }),
    { numRuns: 400 },
  );
});

test('random page table contents of the user never stop the machine', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(511), word, word), { maxLength: 30 }),
      fc.nat(511),
      (entries, page) => {
        const bench = new Bench();
        bench.bind();
        const ioas = bench.ioas();
        const parent = bench.hwpt(ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
        const memory = bench.memory(8 * PAGE);
        bench.map(ioas, 0, memory.address, 8 * PAGE);
        const view = new DataView(memory.bytes.buffer);
        entries.forEach(([index, low, high], i) => {
          const at = (i % 8) * PAGE + index * 8;
          view.setUint32(at, (low & ~0xff) | 0x27, true);
          view.setUint32(at + 4, i % 3 ? 0 : high, true);
        });
        const data = bench.memory();
        data.bytes.set(uapi.iommu_hwpt_vtd_s1.encode({ pgtbl_addr: 0, addr_width: 48 }));
        bench.attach(bench.hwpt(parent, { data_type: 1, data_len: 24, data_uptr: data.address }));
        bench.probe.read(page * PAGE, 8);
        bench.probe.write(page * PAGE, [1, 2, 3]);
        bench.machine.idle();
        (bench.kernel as SimulatedProcess).exit();
      },
    ),
    { numRuns: 200 },
  );
});
