/** ENQCMD in a virtual machine: its PASID is translated, its portal blocked until then, and its queue can be full. */
import { Iommu, type AddressSpace, type Device, type DmaBuffer, type VirtualMachine } from '../../../lib';
import {
  channelCommand,
  COMMAND_BYTES,
  COMPLETION_SUCCESS,
  CONTROL_ATS,
  CONTROL_PAGE_REQUESTS,
  EXIT_ENQCMD_PASID_TRANSLATION,
  EXIT_EPT_VIOLATION,
  IA32_PASID_VALID,
  OPERATION_FILL,
  PORTAL_DEPTH,
  type Machine,
  type SimulatedVm,
} from '../../../lib/sim';
import { attemptBytes } from '../../../lib/ioctl';
import { PROT_WRITE } from '../../../lib/kernel';
import type { EnqueueTarget } from '../../../lib/sim/cpu/enqcmd';
import * as uapi from '../../../lib/uapi';
import { errorOf } from '../../contract/support';
import {
  bindNew,
  machineWith,
  PAGE,
  parentDevice,
  SPACES,
  spaceWith,
  written,
  type TypeName,
} from './parent';

const IOVA = 0x100000n;
const PORTAL = 0xfe000000;
const REGION = 2;
const EACCES = -uapi.errno.EACCES;
const accepted = { kind: 'done', ZF: 0 };
const retry = { kind: 'done', ZF: 1 };
const notTranslated = { kind: 'exit', reason: EXIT_ENQCMD_PASID_TRANSLATION };

/** A fill command; `completion` is told its end. */
function command(
  destination: bigint,
  options: { completion?: bigint; flags?: number; pasid?: number } = {},
): Uint8Array {
  const bytes = new Uint8Array(COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(channelCommand.PASID, options.pasid ?? 0, true);
  view.setUint32(channelCommand.CONTROL, OPERATION_FILL | (options.flags ?? 0), true);
  view.setBigUint64(channelCommand.COMPLETION, options.completion ?? 0n, true);
  view.setBigUint64(channelCommand.DESTINATION, destination, true);
  view.setUint32(channelCommand.LENGTH, 16, true);
  view.setUint32(channelCommand.PATTERN, 0x5a5a5a5a, true);
  return bytes;
}

class Guest {
  readonly machine: Machine;
  readonly iommu: Iommu;
  readonly hardware: SimulatedVm;
  readonly vm: VirtualMachine;

  constructor(machine = machineWith()) {
    this.machine = machine;
    this.iommu = Iommu.open({ backend: machine });
    this.hardware = machine.createVm();
    this.vm = this.iommu.openVm(this.hardware.fd);
  }

  add(type: TypeName, cookie: bigint): Device {
    const device = bindNew(this.iommu, type, cookie);
    this.vm.addDevice(device);
    return device;
  }

  /** A device with vPASID 7 attached and mapped, and its portal in the guest. */
  ready(cookie = 1n): { device: Device; space: AddressSpace; buffer: DmaBuffer } {
    const device = this.add('enqcmd', cookie);
    const found = spaceWith(this.iommu, IOVA, { pasid: true });
    device.attach(found.space, { pasid: 7 });
    this.vm.enablePasidTranslation();
    this.vm.mapPasid(7, found.space);
    expect(this.hardware.mapRegion(PORTAL, device.fd, REGION)).toBe(0);
    return { device, ...found };
  }

  enqcmd(pasid: number, bytes = command(IOVA), address = PORTAL) {
    this.hardware.vcpu.ia32Pasid = (IA32_PASID_VALID | pasid) >>> 0;
    return this.hardware.vcpu.enqcmd(address, bytes);
  }
}

let guest: Guest;

beforeEach(() => (guest = new Guest()));
afterEach(() => {
  guest.iommu.close();
  guest.hardware.close();
});

describe('ENQCMD', () => {
  test('carries the vPASID of the MSR, translated, whatever the guest writes into the command', () => {
    const { buffer } = guest.ready();
    const done = guest.enqcmd(7, command(IOVA, { completion: IOVA + 0x100n, pasid: 0xfffff }));
    expect(done).toEqual(accepted);
    guest.machine.idle();
    expect(written(buffer)).toBe(true);
    expect(new DataView(buffer.bytes.buffer, buffer.bytes.byteOffset).getUint32(0x100, true)).toBe(
      COMPLETION_SUCCESS,
    );
  });

  test('with a vPASID that is not mapped is a VM exit, and so it is once it is unmapped', () => {
    const { buffer } = guest.ready();
    // The hardware's own numbers are no vPASIDs, and other bits lead to other entries.
    for (const pasid of [0, 6, 8, 7 | 0x400, 7 | 0x80000, SPACES.global, SPACES.perRid])
      expect(guest.enqcmd(pasid)).toEqual(notTranslated);
    guest.vm.unmapPasid(7);
    expect(guest.enqcmd(7)).toEqual(notTranslated);
    guest.machine.idle();
    expect(written(buffer)).toBe(false);
  });

  test('needs a valid PASID, an aligned address, and a portal there', () => {
    guest.ready();
    const { vcpu } = guest.hardware;
    vcpu.ia32Pasid = 7;
    expect(vcpu.enqcmd(PORTAL, command(IOVA))).toEqual({ kind: 'general-protection' });
    expect(guest.enqcmd(7, command(IOVA), PORTAL + 8)).toEqual({ kind: 'general-protection' });
    expect(guest.enqcmd(7, command(IOVA), PORTAL + PAGE)).toEqual({
      kind: 'exit',
      reason: EXIT_EPT_VIOLATION,
    });
    expect(() => (vcpu.ia32Pasid = 1 << 20)).toThrow(RangeError);
    expect(() => vcpu.enqcmd(PORTAL, new Uint8Array(63))).toThrow(RangeError);
  });

  test('is to be tried again while the queue is full', () => {
    const { buffer } = guest.ready();
    for (let i = 0; i < PORTAL_DEPTH; i++) expect(guest.enqcmd(7)).toEqual(accepted);
    expect(guest.enqcmd(7)).toEqual(retry);
    guest.machine.idle();
    expect(written(buffer)).toBe(true);
    expect(guest.enqcmd(7)).toEqual(accepted);
  });

  test('faults as {ioasid, cookie, address, vPASID}', async () => {
    const faults = guest.iommu.createFaultQueue();
    const space = guest.iommu.createAddressSpace({ faults, pasid: true });
    const { device } = guest.ready(0x77n);
    device.attach(space, { pasid: 9 });
    guest.vm.mapPasid(9, space);
    guest.enqcmd(9, command(0x300000n, { flags: CONTROL_ATS | CONTROL_PAGE_REQUESTS }));
    guest.machine.idle();
    const fault = await faults.next({ timeout: 1000 });
    expect(fault).toMatchObject({ ioasid: space.ioasid, cookie: 0x77n, address: 0x300000n, pasid: 9 });
    const buffer = guest.iommu.allocateDma(PAGE);
    space.map(buffer, { iova: 0x300000n });
    fault.respond('success');
    guest.machine.idle();
    expect(written(buffer)).toBe(true);
  });

  test('of a vPASID that was detached reaches nothing, and never what its pPASID meant next', () => {
    const { device, buffer } = guest.ready();
    expect(guest.enqcmd(7)).toEqual(accepted);
    device.detach({ pasid: 7 });
    guest.machine.idle();
    expect(written(buffer)).toBe(false);
    // Still translated: the pPASID is kept until it is not.
    expect(guest.enqcmd(7)).toEqual(accepted);
    guest.vm.unmapPasid(7);
    const other = new Guest(guest.machine);
    const theirs = other.ready(2n);
    guest.machine.idle();
    expect(written(theirs.buffer)).toBe(false);
    other.iommu.close();
    other.hardware.close();
  });
});

describe('the portal', () => {
  const flags = (device: Device) => device.region(REGION).flags;
  const mapPortal = ({ fd }: Device): unknown =>
    guest.iommu.kernel.mmap(fd, REGION * 2 ** 40, PAGE, PROT_WRITE);

  test('is blocked until the processor translates, and again afterwards', () => {
    const device = guest.add('enqcmd', 1n);
    const { space, buffer } = spaceWith(guest.iommu, IOVA, { pasid: true });
    device.attach(space, { pasid: 7 });
    expect(guest.hardware.mapRegion(PORTAL, device.fd, REGION)).toBe(EACCES);
    // Compared here: a mapping shown by a failing test would show the whole machine.
    expect(mapPortal(device) === EACCES).toBe(true);
    expect(flags(device)).toBe(0);
    device.region(REGION).close();
    guest.vm.enablePasidTranslation();
    expect(flags(device)).toBe(uapi.VFIO_REGION_INFO_FLAG_WRITE | uapi.VFIO_REGION_INFO_FLAG_MMAP);
    const mapping = mapPortal(device) as EnqueueTarget;
    expect(guest.hardware.mapRegion(PORTAL, device.fd, REGION)).toBe(0);
    guest.vm.mapPasid(7, space);
    expect(guest.enqcmd(7)).toEqual(accepted);
    guest.machine.idle();
    buffer.bytes.fill(0);
    device.detach({ pasid: 7 });
    guest.vm.removeDevice(device);
    expect(guest.enqcmd(7)).toEqual({ kind: 'exit', reason: EXIT_EPT_VIOLATION });
    expect(mapping.enqueue(0, command(IOVA, { pasid: SPACES.global }))).toBe('fault');
    guest.machine.idle();
    expect(written(buffer)).toBe(false);
  });

  test('is not for another virtual machine, whose processor may not translate', () => {
    const { device, buffer } = guest.ready();
    const other = guest.machine.createVm();
    expect(other.mapRegion(PORTAL, device.fd, REGION)).toBe(EACCES);
    other.vcpu.ia32Pasid = IA32_PASID_VALID + SPACES.global;
    expect(other.vcpu.enqcmd(PORTAL, command(IOVA))).toEqual({ kind: 'exit', reason: EXIT_EPT_VIOLATION });
    // Nor for the one it was in, once it is in another.
    device.detach({ pasid: 7 });
    guest.vm.removeDevice(device);
    const second = guest.iommu.openVm(other.fd);
    second.addDevice(device);
    second.enablePasidTranslation();
    expect(other.mapRegion(PORTAL, device.fd, REGION)).toBe(0);
    expect(guest.enqcmd(7)).toEqual({ kind: 'exit', reason: EXIT_EPT_VIOLATION });
    guest.machine.idle();
    expect(written(buffer)).toBe(false);
    other.close();
  });

  test('is there for devices that take ENQCMD only, and takes nothing else', () => {
    const { device } = guest.ready();
    guest.add('pasid', 2n);
    const [, other] = guest.vm.devices;
    expect(errorOf(() => other.region(REGION))).toMatchObject({ code: 'ENODEV' });
    const portal = device.region(REGION);
    portal.write32(0, 1);
    guest.machine.idle();
    expect(guest.enqcmd(7)).toEqual(accepted);
    expect(attemptBytes(guest.iommu.kernel, device.fd, { request: 0x3bff })).toBe(-25);
  });
});

describe('mapPasid', () => {
  test('wants an attach, translation, and a vPASID that is free', () => {
    const device = guest.add('enqcmd', 1n);
    const { space } = spaceWith(guest.iommu, IOVA, { pasid: true });
    expect(errorOf(() => guest.vm.mapPasid(7, space))).toMatchObject({ code: 'ENOENT' });
    device.attach(space, { pasid: 7 });
    expect(errorOf(() => guest.vm.mapPasid(7, space))).toMatchObject({
      code: 'EINVAL',
      request: 'KVM_MAP_PASID',
    });
    guest.vm.enablePasidTranslation();
    guest.vm.mapPasid(7, space);
    expect(guest.vm.mapped).toEqual([{ pasid: 7, ioasid: space.ioasid }]);
    expect(errorOf(() => guest.vm.mapPasid(7, space))).toMatchObject({ code: 'EEXIST' });
    expect(errorOf(() => guest.vm.mapPasid(8, space))).toMatchObject({ code: 'ENOENT' });
    guest.vm.unmapPasid(7);
    expect(errorOf(() => guest.vm.unmapPasid(7))).toMatchObject({ code: 'ENOENT' });
    expect(() => guest.vm.mapPasid(2 ** 20, space)).toThrow(RangeError);
  });
});

test('no kernel but the simulated one has it: EOPNOTSUPP says so', () => {
  const device = bindNew(guest.iommu, 'enqcmd', 1n);
  // An eventfd answers as KVM would: it does not know the request.
  const other = guest.iommu.openVm(guest.iommu.kernel.eventfd(0, 0));
  expect(errorOf(() => other.addDevice(device))).toMatchObject({
    code: 'EOPNOTSUPP',
    request: 'KVM_DEV_VFIO_FILE_ADD',
    hint: "a simulated machine (backend: 'simulated', or a Machine of iommufd/sim) has it",
  });
});

describe('the machine’s file', () => {
  test('is opened once at a time', () => {
    expect(errorOf(() => guest.iommu.openVm(guest.hardware.fd))).toMatchObject({ code: 'EEXIST' });
    guest.vm.close();
    guest.iommu.openVm(guest.hardware.fd).enablePasidTranslation();
  });

  test('may go first: what it translated went with it', () => {
    guest.ready();
    guest.hardware.close();
    guest.vm.close();
    expect(guest.vm.closed).toBe(true);
  });

  test('or be another file by then', () => {
    guest.ready();
    guest.hardware.close();
    const fd = guest.iommu.kernel.eventfd(0, 0);
    guest.vm.close();
    expect(guest.iommu.kernel.close(fd)).toBe(0);
  });
});

describe('devices of types 7 and 8', () => {
  const PDEV = '0000:00:08.0';
  const withPdev = () => {
    const { device } = parentDevice();
    return new Guest(machineWith({ devices: { [PDEV]: device, '0000:00:06.0': parentDevice() } }));
  };
  const MIXED = { code: 'EINVAL', hint: expect.stringContaining('info().pasid.cpuVirt') as string };

  test('are not mixed in one virtual machine', () => {
    const one = withPdev();
    const pdev = one.iommu.bind(PDEV, { cookie: 7n });
    one.vm.addDevice(pdev);
    expect(errorOf(() => one.add('enqcmd', 8n))).toMatchObject(MIXED);
    expect(errorOf(() => one.vm.enablePasidTranslation())).toMatchObject(MIXED);
    one.vm.removeDevice(pdev);
    one.vm.enablePasidTranslation();
    expect(errorOf(() => one.vm.addDevice(pdev))).toMatchObject(MIXED);
    one.iommu.close();
  });

  test('each is in one virtual machine, which goes when its file does', () => {
    const one = withPdev();
    const pdev = one.iommu.bind(PDEV, { cookie: 7n });
    one.vm.addDevice(pdev);
    const second = one.machine.createVm();
    const other = one.iommu.openVm(second.fd);
    expect(errorOf(() => other.addDevice(pdev))).toMatchObject({ code: 'EBUSY' });
    one.hardware.close();
    other.addDevice(pdev);
    // A device that is closed has left.
    pdev.close();
    expect(other.devices).toEqual([]);
    one.iommu.close();
    second.close();
  });

  test('the portal of a type 7 gets no command with a PASID that was translated', () => {
    const one = withPdev();
    const pdev = one.iommu.bind(PDEV, { cookie: 7n });
    expect(one.hardware.mapRegion(PORTAL, pdev.fd, REGION, 8 * PAGE)).toBe(0);
    one.vm.enablePasidTranslation();
    const { space } = spaceWith(one.iommu, IOVA, { pasid: true });
    one.add('enqcmd', 8n).attach(space, { pasid: 7 });
    one.vm.mapPasid(7, space);
    expect(one.enqcmd(7)).toMatchObject({ reason: EXIT_EPT_VIOLATION });
    expect(one.hardware.mapRegion(PORTAL + 64 * PAGE, pdev.fd, REGION, 8 * PAGE)).toBe(-uapi.errno.EACCES);
    one.iommu.close();
  });

  test('type 7: a PCI device takes untranslated ENQCMDs of its own vPASIDs', () => {
    const one = withPdev();
    const pdev = one.iommu.bind(PDEV, { cookie: 7n });
    pdev.enableBusMaster();
    one.vm.addDevice(pdev);
    const { space, buffer } = spaceWith(one.iommu, IOVA, { pasid: true });
    pdev.attach(space, { pasid: 7 });
    expect(one.hardware.mapRegion(PORTAL, pdev.fd, REGION, 8 * PAGE)).toBe(0);
    expect(one.enqcmd(8)).toEqual(accepted);
    one.machine.idle();
    expect(written(buffer)).toBe(false);
    expect(one.enqcmd(7)).toEqual(accepted);
    one.machine.idle();
    expect(written(buffer)).toBe(true);
    one.iommu.close();
  });
});
