import { decodeRegionCapabilities, NO_CAPABILITIES } from '../lib/region-capabilities';
import * as uapi from '../lib/uapi';

/** A chain of capabilities behind a struct of 32 bytes. */
function chain(...parts: { id: number; body?: Uint8Array }[]): Uint8Array {
  const sizes = parts.map(({ body }) => 8 + (body?.length ?? 0));
  const bytes = new Uint8Array(32 + sizes.reduce((sum, size) => sum + size, 0));
  let at = 32;
  parts.forEach(({ id, body }, i) => {
    const next = i + 1 < parts.length ? at + sizes[i] : 0;
    bytes.set(uapi.vfio_info_cap_header.encode({ id, version: 1, next }), at);
    if (body) bytes.set(body, at + 8);
    at += sizes[i];
  });
  return bytes;
}

const words = (...values: number[]) => new Uint8Array(new Uint32Array(values).buffer);

test('each kind, and an unknown one between', () => {
  const bytes = chain(
    {
      id: uapi.VFIO_REGION_INFO_CAP_SPARSE_MMAP,
      body: words(2, 0, 0x1000, 0, 0x2000, 0, 0x8000, 1, 0x1000, 0),
    },
    { id: 99, body: words(1, 2) },
    { id: uapi.VFIO_REGION_INFO_CAP_TYPE, body: words(uapi.VFIO_REGION_TYPE_PCI_VENDOR_TYPE + 0x8086, 1) },
    { id: uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE },
  );
  expect(decodeRegionCapabilities(bytes, 32)).toEqual({
    mappableAreas: [
      { offset: 0x1000, length: 0x2000 },
      { offset: 0x1_0000_8000, length: 0x1000 },
    ],
    type: { type: 0x8000_8086, subtype: 1 },
    msixMappable: true,
  });
});

test('no chain, and chains that lead back or out', () => {
  expect(decodeRegionCapabilities(new Uint8Array(32), 0)).toEqual(NO_CAPABILITIES);
  const bytes = chain({ id: uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE });
  for (const next of [32, 8, 33, 1000]) {
    new DataView(bytes.buffer).setUint32(36, next, true);
    expect(decodeRegionCapabilities(bytes, 32).msixMappable).toBe(true);
  }
});
