import type { Capability, ExtendedCapability } from '../../../lib/sim/devices/capabilities';
import { ConfigSpace, type FunctionDescription } from '../../../lib/sim/devices/config-space';
import * as pci from '../../../lib/sim/devices/pci-registers';

const CAPABILITIES: readonly Capability[] = [
  { kind: 'power-management', noSoftReset: false },
  { kind: 'msi', vectors: 4, wide: true, maskable: true },
  { kind: 'express', type: 'endpoint', functionLevelReset: true },
  { kind: 'msix', vectors: 8, table: { bar: 0, offset: 0x1000 }, pending: { bar: 0, offset: 0x2000 } },
];
const EXTENDED: readonly ExtendedCapability[] = [
  { kind: 'ats', queueDepth: 32 },
  { kind: 'pri', capacity: 16 },
  { kind: 'pasid', width: 20, execute: true, privileged: false },
];
const DESCRIPTION: FunctionDescription = {
  vendorId: 0x1234,
  deviceId: 0xabcd,
  revisionId: 7,
  classCode: 0x010802,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  interruptPin: 2,
  bars: [
    { bar: 0, size: 0x4000, width: 64, prefetchable: false },
    { bar: 2, size: 0x100000, width: 32, prefetchable: false },
    { bar: 4, size: 2 ** 33, width: 64, prefetchable: true },
  ],
  capabilities: CAPABILITIES,
  extendedCapabilities: EXTENDED,
};

test('the header says who the function is', () => {
  const config = new ConfigSpace(DESCRIPTION);
  expect(config.size).toBe(4096);
  expect(config.read(0, 4)).toBe(0xabcd1234);
  expect(config.read(0x08, 4)).toBe(0x01080207);
  expect(config.read(0x2c, 4)).toBe(0x11001af4);
  expect(config.read(0x3d, 1)).toBe(2);
  expect(config.read(0x0e, 1)).toBe(0);
  expect(config.read(0x06, 2)).toBe(pci.STATUS_CAPABILITIES_LIST);
});

test('identity is read-only', () => {
  const config = new ConfigSpace(DESCRIPTION);
  for (const offset of [0x00, 0x08, 0x2c, 0x34]) {
    const before = config.read(offset, 4);
    config.write(offset, 4, 0x55aa55aa);
    expect(config.read(offset, 4)).toBe(before);
  }
});

test('the command register keeps the bits that mean something here', () => {
  const config = new ConfigSpace(DESCRIPTION);
  expect(config.memoryEnabled || config.busMasterEnabled || config.intxDisabled).toBe(false);
  config.write(pci.COMMAND, 2, 0xffff);
  expect(config.read(pci.COMMAND, 2)).toBe(0x0546);
  expect(config.memoryEnabled && config.busMasterEnabled && config.intxDisabled).toBe(true);
});

test('status errors are cleared by ones, and only those', () => {
  const config = new ConfigSpace(DESCRIPTION);
  config.set(pci.STATUS, 2, 0xf918);
  config.write(pci.STATUS, 2, 0x8008);
  expect(config.read(pci.STATUS, 2)).toBe(0x7918);
  // A dword write of the command register with zeros above leaves the status alone.
  config.write(pci.COMMAND, 4, 0x00000006);
  expect(config.read(pci.STATUS, 2)).toBe(0x7918);
  config.write(pci.STATUS, 2, 0xffff);
  expect(config.read(pci.STATUS, 2)).toBe(0x0018);
});

test('all ones in a BAR read back as its size and type', () => {
  const config = new ConfigSpace(DESCRIPTION);
  for (let at = 0x10; at < 0x28; at += 4) config.write(at, 4, 0xffffffff);
  const words = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map((at) => config.read(at, 4));
  expect(words).toEqual([0xffffc004, 0xffffffff, 0xfff00000, 0, 0x0000000c, 0xfffffffe]);
});

test('BAR addresses', () => {
  const config = new ConfigSpace(DESCRIPTION);
  config.write(0x10, 4, 0xfe01_2345);
  config.write(0x14, 4, 0x12);
  config.write(0x18, 4, 0xfeb0_0000);
  expect(config.barAddress(0)).toBe(0x12_fe01_0000);
  expect(config.barAddress(2)).toBe(0xfeb0_0000);
  expect(config.bar(1)).toBeUndefined();
  expect(() => config.barAddress(1)).toThrow(RangeError);
});

test('the capability list can be walked', () => {
  const config = new ConfigSpace(DESCRIPTION);
  const found: [number, number][] = [];
  for (let at = config.read(0x34, 1); at !== 0; at = config.read(at + 1, 1)) {
    expect(at % 4).toBe(0);
    found.push([config.read(at, 1), at]);
  }
  expect(found.map(([id]) => id)).toEqual([0x01, 0x05, 0x10, 0x11]);
  for (const [id, at] of found) expect(config.capability(id)).toBe(at);
  expect(config.capability(0x09)).toBe(0);
});

test('so can the extended ones', () => {
  const config = new ConfigSpace(DESCRIPTION);
  const found: [number, number][] = [];
  for (let at = 0x100; at !== 0; at = config.read(at, 4) >>> 20) {
    const header = config.read(at, 4);
    expect((header >>> 16) & 0xf).toBe(1);
    found.push([header & 0xffff, at]);
  }
  expect(found.map(([id]) => id)).toEqual([0x0f, 0x13, 0x1b]);
  for (const [id, at] of found) expect(config.extendedCapability(id)).toBe(at);
});

test('reset values and writable bits of the capabilities', () => {
  const config = new ConfigSpace(DESCRIPTION);
  const after = (at: number, width: number): [number, number] => {
    const before = config.read(at, width);
    config.write(at, width, 0xffffffff);
    return [before, config.read(at, width)];
  };
  const msi = config.capability(pci.CAPABILITY_MSI);
  expect(after(msi + 2, 2)).toEqual([0x0184, 0x01f5]);
  expect(after(msi + 4, 4)).toEqual([0, 0xfffffffc]);
  expect(after(msi + 8, 4)).toEqual([0, 0xffffffff]);
  expect(after(msi + 12, 2)).toEqual([0, 0xffff]);
  expect(after(msi + 16, 4)).toEqual([0, 0xf]);
  expect(after(msi + 20, 4)).toEqual([0, 0]);
  const msix = config.capability(pci.CAPABILITY_MSIX);
  expect(after(msix + 2, 2)).toEqual([7, 0xc007]);
  expect(after(msix + 4, 4)).toEqual([0x1000, 0x1000]);
  expect(after(msix + 8, 4)).toEqual([0x2000, 0x2000]);
  const express = config.capability(pci.CAPABILITY_EXPRESS);
  expect(config.read(express + 2, 2)).toBe(0x0002);
  expect(config.read(express + 4, 4)).toBe(0x10008000);
  expect(after(express + 8, 2)).toEqual([0x2810, 0xf8ff]);
  const ats = config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
  expect(config.read(ats + 4, 2)).toBe(0x60);
  expect(after(ats + 6, 2)).toEqual([0, 0x801f]);
  const pri = config.extendedCapability(pci.EXTENDED_CAPABILITY_PRI);
  expect(config.read(pri + 6, 2)).toBe(0x8100);
  expect(after(pri + 8, 4)).toEqual([16, 16]);
  expect(after(pri + 12, 4)).toEqual([0, 0xffffffff]);
  const pasid = config.extendedCapability(pci.EXTENDED_CAPABILITY_PASID);
  expect(config.read(pasid + 4, 2)).toBe(0x1402);
  expect(after(pasid + 6, 2)).toEqual([0, 0x3]);
  config.reset();
  expect(config.read(msi + 2, 2)).toBe(0x0184);
  expect(config.read(pri + 12, 4)).toBe(0);
});

test('an integrated endpoint has a type and no link', () => {
  const config = new ConfigSpace({
    ...DESCRIPTION,
    capabilities: [{ kind: 'express', type: 'root-complex-endpoint', functionLevelReset: false }],
  });
  expect(config.read(0x42, 2)).toBe(0x92);
  expect(config.read(0x44, 4)).toBe(0x8000);
  expect(config.read(0x4c, 4)).toBe(0);
  config.write(0x48, 2, 0xffff);
  expect(config.read(0x48, 2)).toBe(0x78ff);
});

test('without PCI Express there are 256 bytes, and ones beyond', () => {
  const { extendedCapabilities: _, ...rest } = DESCRIPTION;
  const config = new ConfigSpace({ ...rest, capabilities: [] });
  expect(config.size).toBe(256);
  expect([config.read(0x100, 4), config.read(0x100, 2), config.read(0xfff, 1)]).toEqual([
    0xffffffff, 0xffff, 0xff,
  ]);
  config.write(0x100, 4, 0);
  expect(config.read(0x100, 4)).toBe(0xffffffff);
  expect(config.read(pci.STATUS, 2)).toBe(0);
  expect(config.read(0x34, 1)).toBe(0);
});

test('bulk access of any range is the same as single accesses', () => {
  const config = new ConfigSpace(DESCRIPTION);
  const all = new Uint8Array(4096);
  config.readBytes(0, all);
  for (let at = 0; at < 4096; at += 4) {
    expect(config.read(at, 4)).toBe(new DataView(all.buffer).getUint32(at, true));
  }
  const writes: [number, number][] = [];
  const watched = new ConfigSpace(DESCRIPTION, (offset, width) => writes.push([offset, width]));
  watched.writeBytes(0x11, Uint8Array.from([0x11, 0xc0, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]));
  expect(writes).toEqual([
    [0x11, 1],
    [0x12, 2],
    [0x14, 4],
    [0x18, 1],
  ]);
  expect(watched.read(0x10, 4)).toBe(0x33c00004);
  expect(watched.read(0x14, 4)).toBe(0x77665544);
});

test.each([
  [1, 2],
  [2, 4],
  [4095, 2],
  [4096, 1],
  [-4, 4],
  [0, 3],
  [0, 8],
  [0.5, 1],
])('no access at %p of width %p', (offset, width) => {
  const config = new ConfigSpace(DESCRIPTION);
  expect(() => config.read(offset, width)).toThrow(RangeError);
  expect(() => config.write(offset, width, 0)).toThrow(RangeError);
});

test('what cannot be is refused', () => {
  const build = (change: Partial<FunctionDescription>) => () =>
    new ConfigSpace({ ...DESCRIPTION, ...change });
  const bar = { bar: 0, size: 4096, width: 32, prefetchable: false } as const;
  expect(build({ bars: [{ ...bar, size: 3000 }] })).toThrow('BAR 0: a size of 3000 bytes is not possible');
  expect(build({ bars: [{ ...bar, bar: 5, width: 64 }] })).toThrow('no 64-bit BAR 5');
  expect(
    build({
      bars: [
        { ...bar, width: 64 },
        { ...bar, bar: 1 },
      ],
    }),
  ).toThrow('BAR 1 is declared twice');
  expect(build({ capabilities: [] })).toThrow("extended capabilities need an 'express' capability");
  expect(build({ capabilities: [...CAPABILITIES, CAPABILITIES[0]] })).toThrow('one power-management');
  expect(build({ extendedCapabilities: [{ kind: 'ats', queueDepth: 33 }] })).toThrow('from 1 to 32');
  expect(build({ extendedCapabilities: [EXTENDED[0], EXTENDED[0]] })).toThrow('one ats');
});
