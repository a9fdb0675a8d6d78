import { NO_PASID, PRG_FAILURE, PRG_INVALID, PRG_SUCCESS } from '../../../lib/sim/bus';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { TestFunction } from './test-function';

const PRI = pci.EXTENDED_CAPABILITY_PRI;

function build(allocation = 4): TestFunction {
  const device = new TestFunction();
  device.setExtended(
    pci.EXTENDED_CAPABILITY_PASID,
    pci.PASID_CONTROL,
    2,
    pci.PASID_CONTROL_ENABLE | pci.PASID_EXECUTE,
  );
  device.setExtended(PRI, pci.PRI_ALLOCATION, 4, allocation);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
  return device;
}
const status = (device: TestFunction): number => device.getExtended(PRI, pci.PRI_STATUS) & 0x103;

test('nothing is sent while the interface is off, or without credit', () => {
  const off = new TestFunction();
  expect([off.page(NO_PASID, 0), off.credits]).toEqual([false, 0]);
  expect(status(off)).toBe(pci.PRI_STATUS_STOPPED);
  const none = build(0);
  expect([none.page(NO_PASID, 0), none.upstream.pageRequests]).toEqual([false, []]);
  expect(status(none)).toBe(0);
});

test('credits are the allocation, up to the capacity, less what is in flight', () => {
  const device = build(2);
  expect(device.credits).toBe(2);
  expect([device.page(5, 7, false), device.page(5, 7), device.page(5, 8)]).toEqual([true, true, false]);
  device.pageGroupResponse(5, 7, PRG_SUCCESS);
  expect(device.credits).toBe(2);
  expect(device.responses).toEqual([[5, 7, PRG_SUCCESS]]);
  expect(build(100).credits).toBe(16);
});

test('a request the root refuses costs no credit', () => {
  const device = build(1);
  device.upstream.pri = false;
  expect([device.page(5, 7), device.credits]).toEqual([false, 1]);
});

test('a PASID only where enabled', () => {
  const device = build();
  expect([device.page(255, 1), device.page(256, 2)]).toEqual([true, false]);
});

test.each([
  ['an index without requests', 5, 8],
  ['another PASID', 6, 7],
  ['no PASID', NO_PASID, 7],
  ['an index out of range', 5, 512],
])('a response for %s is unexpected', (_name, pasid, prgIndex) => {
  const device = build();
  device.page(5, 7);
  device.pageGroupResponse(pasid, prgIndex, PRG_SUCCESS);
  expect(device.responses).toEqual([]);
  expect(status(device)).toBe(pci.PRI_STATUS_UNEXPECTED_GROUP);
  device.setExtended(PRI, pci.PRI_STATUS, 2, pci.PRI_STATUS_UNEXPECTED_GROUP);
  expect(status(device)).toBe(0);
});

test('invalid is an answer like success; failure turns the interface off', () => {
  const device = build();
  device.page(5, 7);
  device.pageGroupResponse(5, 7, PRG_INVALID);
  device.page(5, 8);
  device.page(5, 9);
  device.pageGroupResponse(5, 8, PRG_FAILURE);
  expect(device.responses).toEqual([
    [5, 7, PRG_INVALID],
    [5, 8, PRG_FAILURE],
  ]);
  expect(status(device)).toBe(pci.PRI_STATUS_STOPPED | pci.PRI_STATUS_RESPONSE_FAILURE);
  expect(device.getExtended(PRI, pci.PRI_CONTROL)).toBe(0);
  // What comes later is ignored until the interface is on again.
  device.pageGroupResponse(5, 9, PRG_SUCCESS);
  expect(device.responses).toHaveLength(2);
  expect(status(device) & pci.PRI_STATUS_UNEXPECTED_GROUP).toBe(0);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
  expect([device.page(5, 10), device.credits]).toEqual([true, 3]);
  device.pageGroupResponse(5, 10, PRG_SUCCESS);
  expect(device.responses).toHaveLength(3);
});

test('Stopped comes when it is off and all is answered', () => {
  const device = build();
  device.page(5, 7);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, 0);
  expect(status(device)).toBe(0);
  device.pageGroupResponse(5, 7, PRG_SUCCESS);
  expect(device.responses).toHaveLength(1);
  expect(status(device)).toBe(pci.PRI_STATUS_STOPPED);
});

test('Reset forgets what is in flight, only while the interface is off, and reads as zero', () => {
  const device = build();
  device.page(5, 7);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE | pci.PRI_CONTROL_RESET);
  expect(device.credits).toBe(3);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_RESET);
  expect(device.getExtended(PRI, pci.PRI_CONTROL)).toBe(0);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
  expect(device.credits).toBe(4);
});

test('a reset of the function forgets what is in flight', () => {
  const device = build();
  device.page(NO_PASID, 7);
  device.reset();
  device.setExtended(PRI, pci.PRI_ALLOCATION, 4, 4);
  device.setExtended(PRI, pci.PRI_CONTROL, 2, pci.PRI_CONTROL_ENABLE);
  expect(device.credits).toBe(4);
  device.pageGroupResponse(NO_PASID, 7, PRG_SUCCESS);
  expect(device.responses).toEqual([]);
});
