/** A virtual machine moves to another machine: its vPASIDs stay, and mean what they meant, by other pPASIDs. */
import { Iommu, type AddressSpace, type Device, type DmaBuffer, type SavedPasids } from '../../../lib';
import {
  channelCommand,
  COMMAND_BYTES,
  EXIT_ENQCMD_PASID_TRANSLATION,
  IA32_PASID_VALID,
  OPERATION_FILL,
  type Machine,
} from '../../../lib/sim';
import { translatePasid } from '../../../lib/sim/cpu/pasid-translation';
import { errorOf } from '../../contract/support';
import { bindNew, machineWith, OTHER_PARENT, PARENT, spaceWith, written } from './parent';

const IOVA = 0x100000n;
const PORTAL = 0x20000000;
const VPASIDS = [3, 0x80000];

/** A host with two devices for a guest, and the guest's address spaces. */
class Host {
  readonly iommu: Iommu;
  readonly hardware;
  readonly vm;
  readonly devices: Device[];
  readonly spaces: AddressSpace[];
  readonly buffers: DmaBuffer[];

  constructor(readonly machine: Machine) {
    this.iommu = Iommu.open({ backend: machine });
    this.hardware = machine.createVm();
    this.vm = this.iommu.openVm(this.hardware.fd);
    this.devices = [PARENT, OTHER_PARENT].map((parent, i) =>
      bindNew(this.iommu, 'enqcmd', BigInt(i), parent),
    );
    for (const device of this.devices) this.vm.addDevice(device);
    const made = VPASIDS.map(() => spaceWith(this.iommu, IOVA, { pasid: true }));
    this.spaces = made.map(({ space }) => space);
    this.buffers = made.map(({ buffer }) => buffer);
  }

  mapPortals(): void {
    this.devices.forEach(({ fd }, i) => expect(this.hardware.mapRegion(PORTAL + 4096 * i, fd, 2)).toBe(0));
  }

  /** The guest's application goes on: its MSR has what it had. */
  enqcmd(device: number, ia32Pasid: number) {
    const bytes = new Uint8Array(COMMAND_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(channelCommand.CONTROL, OPERATION_FILL, true);
    view.setBigUint64(channelCommand.DESTINATION, IOVA, true);
    view.setUint32(channelCommand.LENGTH, 8, true);
    view.setUint32(channelCommand.PATTERN, 0x5a5a5a5a, true);
    this.hardware.vcpu.ia32Pasid = ia32Pasid;
    const result = this.hardware.vcpu.enqcmd(PORTAL + 4096 * device, bytes);
    this.machine.idle();
    return result;
  }

  /** What the processor makes of the guest's PASIDs. */
  hostPasids(): number[] {
    const { memory, directories } = this.hardware.vcpu.machine;
    return VPASIDS.map((pasid) => (directories ? translatePasid(memory, directories, pasid) : -1));
  }

  close(): void {
    this.iommu.close();
    this.hardware.close();
  }
}

let source: Host;
let target: Host;

beforeEach(() => {
  source = new Host(machineWith());
  source.vm.enablePasidTranslation();
  VPASIDS.forEach((pasid, i) => {
    for (const device of source.devices) device.attach(source.spaces[i], { pasid });
    source.vm.mapPasid(pasid, source.spaces[i]);
  });
  target = new Host(machineWith({ pasids: { perRid: 0x111, global: 0x44444 } }));
});
afterEach(() => {
  source.close();
  target.close();
});

const restore = (saved: SavedPasids) =>
  target.vm.restorePasids(saved, {
    device: (cookie) => target.devices[Number(cookie)],
    space: (ioasid) => target.spaces[source.spaces.findIndex((space) => space.ioasid === ioasid)],
  });

test('what is saved is plain data, and all of it the guest’s', () => {
  const saved = source.vm.savePasids();
  expect(saved.translated).toBe(true);
  expect(saved.mapped).toEqual(VPASIDS.map((pasid, i) => ({ pasid, ioasid: source.spaces[i].ioasid })));
  expect(saved.attached).toHaveLength(4);
  expect(JSON.parse(JSON.stringify(saved))).toEqual(saved);
});

test('the guest goes on with its vPASIDs, by other pPASIDs', () => {
  const ia32Pasid = IA32_PASID_VALID + VPASIDS[1];
  source.mapPortals();
  expect(source.enqcmd(0, ia32Pasid)).toEqual({ kind: 'done', ZF: 0 });
  expect(source.buffers.map(written)).toEqual([false, true]);

  restore(JSON.parse(JSON.stringify(source.vm.savePasids())) as SavedPasids);
  target.mapPortals();
  expect(target.enqcmd(1, ia32Pasid)).toEqual({ kind: 'done', ZF: 0 });
  expect(target.buffers.map(written)).toEqual([false, true]);
  expect(target.enqcmd(0, IA32_PASID_VALID + VPASIDS[0])).toEqual({ kind: 'done', ZF: 0 });
  expect(target.buffers.map(written)).toEqual([true, true]);
  expect(target.enqcmd(0, IA32_PASID_VALID + 4)).toEqual({
    kind: 'exit',
    reason: EXIT_ENQCMD_PASID_TRANSLATION,
  });
  expect(source.hostPasids()).toEqual([0xc3c31, 0xc3c32]);
  expect(target.hostPasids()).toEqual([0x44444, 0x44445]);
});

test('what cannot be restored is undone', () => {
  const saved = source.vm.savePasids();
  target.devices[1].attach(target.spaces[0], { pasid: VPASIDS[1] });
  expect(errorOf(() => restore(saved))).toMatchObject({ code: 'EEXIST' });
  expect(target.vm.mapped).toEqual([]);
  expect(target.devices.map((device) => device.slots.length)).toEqual([0, 1]);
  target.devices[1].detach({ pasid: VPASIDS[1] });
  restore(saved);
  expect(target.vm.mapped).toEqual(
    saved.mapped.map(({ pasid }, i) => ({ pasid, ioasid: target.spaces[i].ioasid })),
  );
});

test('what was attached there before is not undone', () => {
  const saved = source.vm.savePasids();
  target.devices[0].attach(target.spaces[0], { pasid: VPASIDS[0] });
  target.devices[1].attach(target.spaces[0], { pasid: VPASIDS[1] });
  expect(errorOf(() => restore(saved))).toMatchObject({ code: 'EEXIST' });
  expect(target.devices.map((device) => device.slots.length)).toEqual([1, 1]);
});

test('a device that is not in the machine is refused, and attached to nothing', () => {
  const saved = source.vm.savePasids();
  target.vm.removeDevice(target.devices[0]);
  expect(() => restore(saved)).toThrow(TypeError);
  expect(target.devices[0].slots).toEqual([]);
});

test('a space that is closed takes its vPASIDs out of what is saved', () => {
  source.spaces[0].close();
  expect(source.vm.savePasids().mapped).toEqual([{ pasid: VPASIDS[1], ioasid: source.spaces[1].ioasid }]);
});

test('a machine that is closed twice closes nothing of others', () => {
  const { hardware, iommu } = target;
  target.iommu.close();
  hardware.close();
  const fd = iommu.kernel.eventfd(0, 0);
  hardware.close();
  expect(iommu.kernel.close(fd)).toBe(0);
});
