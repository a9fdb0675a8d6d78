/** The driver on a simulated accelerator that tests make misbehave. */
import { DsaDriver, type DsaOptions } from '../../../examples/drivers/dsa/driver';
import { Iommu } from '../../../lib';
import { Dsa, type FaultInjector, type FaultOptions, Machine } from '../../../lib/sim';

export const BDF = '0000:00:06.0';
export const LENGTH = 10_000;
export const seed = Number(process.env['FAULT_SEED'] ?? 20261128);

const opened: { iommu: Iommu; dsa: DsaDriver }[] = [];
export async function closeAll(): Promise<void> {
  for (const { iommu, dsa } of opened.splice(0)) {
    await dsa.close();
    iommu.close();
  }
}

export async function setUp(options: DsaOptions = {}) {
  const machine = new Machine({ devices: { [BDF]: new Dsa() } });
  const iommu = Iommu.open({ backend: machine });
  const dsa = await DsaDriver.open(iommu, { timeout: 5000, ...options });
  opened.push({ iommu, dsa });
  const [from, to] = [dsa.pool.allocate(LENGTH), dsa.pool.allocate(LENGTH)];
  for (let i = 0; i < LENGTH; i++) from.bytes[i] = i * 7 + (i >> 8);
  const faults = (rest: Partial<FaultOptions> = {}) => machine.injectFaults(BDF, { seed, ...rest });
  const works = async () => {
    to.bytes.fill(0);
    await dsa.move(from.iova, to.iova, LENGTH);
    expect(Buffer.compare(from.bytes, to.bytes)).toBe(0);
  };
  return { machine, dsa, from, to, faults, works };
}

/** Calls `heard` before each request that the device makes. */
export function watchRequests(injected: FaultInjector, heard: () => void): void {
  for (const name of ['read', 'write', 'translate'] as const) {
    const original = injected[name].bind(injected) as (...request: unknown[]) => never;
    Object.assign(injected, {
      [name]: (...request: unknown[]) => {
        heard();
        return original(...request);
      },
    });
  }
}
