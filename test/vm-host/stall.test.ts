import { StallError } from '../../scripts/conformance/guest';
import { VmPeer } from '../../scripts/conformance/vm-peer';

test('a guest that does not answer is replaced once, then given up', async () => {
  // Shorter than any guest takes to start.
  const peer = new VmPeer(120, {}, 0.2);
  const open = { name: 'open', calls: [{ label: 0, op: 'open', path: '/dev/iommu' } as const] };
  await expect(peer.run([open])).rejects.toThrow(StallError);
  expect(peer.stalls).toBe(0);
  await peer.close();
}, 120_000);
