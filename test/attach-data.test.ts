import { AttachTable, NO_PASID } from '../lib/attach-data';

const nic = { cookie: 0x11n, ioasid: 1 };
const queue = { cookie: 0x22n, ioasid: 2 };

describe('attach data', () => {
  test('a slot gives what was attached to exactly it', () => {
    const table = new AttachTable();
    table.add(3, NO_PASID, nic);
    table.add(3, 7, queue);
    expect(table.get(3, NO_PASID)).toBe(nic);
    expect(table.find(3, 7)).toBe(queue);
    expect(table.get(3, 8)).toBeUndefined();
    expect(table.find(4, 7)).toBeUndefined();
  });

  test('two devices of one parent are told apart by PASID: the question of the RFC', () => {
    const table = new AttachTable();
    const [first, second] = [
      { cookie: 1n, ioasid: 5 },
      { cookie: 2n, ioasid: 5 },
    ];
    table.add(9, 100, first);
    table.add(9, 101, second);
    expect(table.find(9, 100)).toBe(first);
    expect(table.find(9, 101)).toBe(second);
  });

  test('a slot is never filled twice', () => {
    const table = new AttachTable();
    table.add(3, 7, nic);
    expect(() => table.add(3, 7, queue)).toThrow('slot [device 3, PASID 7] is taken');
    expect(table.get(3, 7)).toBe(nic);
  });

  test('an unknown PASID belongs to the device slot, which may stand for a whole PASID table', () => {
    const table = new AttachTable();
    table.add(3, NO_PASID, nic);
    expect(table.find(3, 1234)).toBe(nic);
    expect(table.find(3, 2 ** 32 - 1)).toBe(nic);
    expect(table.get(3, 1234)).toBeUndefined();
  });

  test('removing empties one slot only', () => {
    const table = new AttachTable();
    table.add(3, 7, queue);
    table.add(3, 8, nic);
    expect(table.remove(3, 7)).toBe(true);
    expect(table.remove(3, 7)).toBe(false);
    expect(table.find(3, 7)).toBeUndefined();
    expect(table.find(3, 8)).toBe(nic);
  });

  test('the largest IDs do not run into each other', () => {
    const table = new AttachTable();
    const last = { cookie: 3n, ioasid: 3 };
    table.add(2 ** 32 - 1, 2 ** 20 - 1, last);
    table.add(2 ** 32 - 2, 2 ** 20 - 1, nic);
    table.add(2 ** 32 - 1, 2 ** 20 - 2, queue);
    expect(table.get(2 ** 32 - 1, 2 ** 20 - 1)).toBe(last);
    expect(() => table.get(1, 2 ** 20)).toThrow(RangeError);
    expect(() => table.get(2 ** 32, 1)).toThrow(RangeError);
    expect(() => table.get(1, -1)).toThrow(RangeError);
  });
});
