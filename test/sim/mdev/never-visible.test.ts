/**
 * Of a device's PASIDs user space sees the vPASIDs it chose, and nothing else: no pPASID and no default PASID, in any
 * output. They are made large numbers here that nothing else has, in this or that form, and looked for everywhere.
 */
import { Iommu, type Kernel } from '../../../lib';
import {
  channelCommand,
  COMMAND_BYTES,
  CONTROL_ATS,
  CONTROL_PAGE_REQUESTS,
  dmaEngine,
  IA32_PASID_VALID,
  OPERATION_FILL,
  type Machine,
  type SimulatedProcess,
} from '../../../lib/sim';
import { SimulatedCallPage } from '../../../lib/sim/kernel/call-page';
import { errorOf } from '../../contract/support';
import { bindNew, machineWith, PARENT, spaceWith, SPACES, startFill } from './parent';

const FAULTING = CONTROL_ATS | CONTROL_PAGE_REQUESTS;
/** As many numbers as the test could make the kernel hand out. */
const HANDED_OUT = 64;
const hidden = [SPACES.perRid, SPACES.global].flatMap((first) =>
  Array.from({ length: HANDED_OUT }, (_, i) => first + i),
);

/** Everything that a process gets from the kernel: what its calls return, and what they leave in its buffers. */
class Wiretap {
  readonly heard: Uint8Array[] = [];
  readonly texts: string[] = [];

  constructor(readonly kernel: SimulatedProcess) {}

  /** The same process, listened to. */
  proxy(): Kernel {
    const kernel: Kernel = new Proxy(this.kernel as Kernel, {
      get: (target, name) => {
        // The ioctls that are made through it are heard as all others.
        if (name === 'callPage') return () => (page ??= new SimulatedCallPage(kernel));
        const value = Reflect.get(target, name) as unknown;
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          const result: unknown = Reflect.apply(value, target, args);
          this.#hear(result, args);
          return result;
        };
      },
    });
    let page: SimulatedCallPage | undefined;
    return kernel;
  }

  #hear(result: unknown, args: readonly unknown[]): void {
    if (typeof result === 'number') this.texts.push(String(result));
    else if (typeof result === 'string') this.texts.push(result);
    else if (Array.isArray(result)) this.texts.push(...result.map(String));
    for (const each of args) if (each instanceof Uint8Array) this.heard.push(Uint8Array.from(each));
  }
}

/** A PASID in bytes: 20 bits of a 32-bit word at any multiple of 2 bytes. */
function findInBytes(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: number[] = [];
  for (let at = 0; at + 4 <= bytes.length; at += 2) {
    const value = view.getUint32(at, true) & 0xfffff;
    if (hidden.includes(value)) found.push(value);
  }
  return found;
}

function findInText(text: string): number[] {
  const lower = text.toLowerCase();
  return hidden.filter((value) => lower.includes(String(value)) || lower.includes(value.toString(16)));
}

/** Every text and link below a folder. */
function texts(kernel: Kernel, folder: string): string[] {
  const names = kernel.readdir(folder);
  if (typeof names === 'number') return [];
  return names.flatMap((name) => {
    const path = `${folder}/${name}`;
    const link = kernel.readlink(path);
    if (typeof link === 'string') return [path, link];
    const text = kernel.readFile(path);
    return [path, ...(typeof text === 'string' ? [text] : texts(kernel, path))];
  });
}

/** A value with all that is in it, as text. */
function shown(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? each.toString() : each));
}

test('what looks for them finds them', () => {
  expect(findInBytes(Uint8Array.of(0, 0, 0xa1, 0xa5, 0x85, 0x80))).toEqual([SPACES.perRid]);
  expect(findInText(`PASID ${SPACES.global + 1}`)).toEqual([SPACES.global + 1]);
  expect(findInText('0x5A5A1')).toEqual([SPACES.perRid]);
});

/** A process does all that can be done with PASIDs; `outputs` gets what its objects say. */
async function useEverything(machine: Machine, iommu: Iommu, process: SimulatedProcess, outputs: unknown[]) {
  const hardware = machine.createVm(process);
  const vm = iommu.openVm(hardware.fd);
  const faults = iommu.createFaultQueue();
  const space = iommu.createAddressSpace({ pasid: true, faults });
  const devices = (['channel', 'pasid', 'enqcmd', 'enqcmd'] as const).map((type, i) =>
    bindNew(iommu, type, BigInt(i)),
  );
  const [channel, pasid, first, second] = devices;
  for (const device of [first, second]) vm.addDevice(device);
  vm.enablePasidTranslation();
  channel.attach(space);
  pasid.attach(space);
  for (const device of [pasid, first]) device.attach(space, { pasid: 7 });
  vm.mapPasid(7, space);
  outputs.push(errorOf(() => second.attach(space, { pasid: 7 })));
  outputs.push(
    errorOf(() => vm.mapPasid(7, space)),
    vm.savePasids(),
    vm.mapped,
  );
  hardware.mapRegion(0x10000000, first.fd, 2);
  hardware.vcpu.ia32Pasid = IA32_PASID_VALID + 7;
  const bytes = new Uint8Array(COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(channelCommand.CONTROL, OPERATION_FILL | FAULTING, true);
  view.setUint32(channelCommand.DESTINATION, 0x900000, true);
  view.setUint32(channelCommand.LENGTH, 8, true);
  outputs.push(hardware.vcpu.enqcmd(0x10000000, bytes), bytes);
  startFill(channel, 0x700000n, { flags: FAULTING });
  startFill(pasid, 0x800000n, { flags: FAULTING, pasid: 7 });
  machine.idle();
  for (let i = 0; i < 3; i++) {
    const { raw, ...fault } = await faults.next({ timeout: 1000 });
    outputs.push(raw, fault);
  }
  outputs.push(iommu.describe(), iommu.devices(), iommu.groups(), iommu.mdevTypes());
  for (const device of devices) {
    outputs.push(
      device.info(),
      device.hardwareInfo(),
      iommu.deviceInfo(device.cookie),
      device.slots.map(({ pasid: v }) => v),
    );
    const registers = device.region('bar0');
    for (let at = 0; at < 0x60; at += 4) registers.read32(at);
    for (let at: number = dmaEngine.BUFFER; at < 0x1000; at += 8) registers.read64(at);
    const config = device.region('config');
    for (let at = 0; at < 256; at += 4) config.read32(at);
  }
  vm.unmapPasid(7);
  for (const device of devices) device.close();
  hardware.close();
}

test('no output has a pPASID or a default PASID', async () => {
  const machine = machineWith();
  const process = machine.createProcess();
  const tap = new Wiretap(process);
  const iommu = Iommu.open({ backend: tap.proxy() });
  const outputs: unknown[] = [];
  await useEverything(machine, iommu, process, outputs);
  const { buffer } = spaceWith(iommu, 0x100000n);
  outputs.push(buffer.bytes);
  iommu.close();

  expect(tap.heard.length).toBeGreaterThan(500);
  const all = [
    ...texts(process, '/sys'),
    ...texts(process, '/dev'),
    ...texts(process, '/proc'),
    ...tap.texts,
  ];
  expect(all).toContain(`/sys/class/mdev_bus/${PARENT}`);
  expect(tap.heard.flatMap(findInBytes)).toEqual([]);
  expect(all.flatMap(findInText)).toEqual([]);
  expect(
    outputs.map((each) => findInText(each instanceof Error ? String(each.stack) : shown(each))).flat(),
  ).toEqual([]);
  // The hardware did see them.
  expect(machine.refusedDma.map(({ pasid }) => pasid).concat(pasidsOf(machine))).toEqual(
    expect.arrayContaining([SPACES.perRid + 1]),
  );
});

/** Of the parent's channels, the default PASIDs that its driver has set. */
function pasidsOf(machine: Machine): number[] {
  const device = machine.device(PARENT);
  return Array.from({ length: 8 }, (_, i) => (device?.readBar(4, 16 * i, 4) ?? 0) & 0xfffff);
}
