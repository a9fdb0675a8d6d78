import { AttachTable, NO_PASID, PASID_LIMIT, type IommuDev } from '../lib/attach-data';
import { errorOf } from './contract/support';

const nic: IommuDev = { rid: 3, defaultPasid: NO_PASID, cookie: 0x11n };
/** Two mediated devices of one parent, told apart by their default PASIDs. */
const first: IommuDev = { rid: 9, defaultPasid: 100, cookie: 1n };
const second: IommuDev = { rid: 9, defaultPasid: 101, cookie: 2n };

describe('attach data', () => {
  test('a raw fault is resolved to the IOASID and cookie of exactly its slot', () => {
    const table = new AttachTable();
    table.add(nic, undefined, 1);
    table.add(nic, 7, 2);
    expect(table.resolve({ rid: 3, pasid: NO_PASID, addr: 0x1000n })).toEqual({
      ioasid: 1,
      cookie: 0x11n,
      addr: 0x1000n,
    });
    expect(table.resolve({ rid: 3, pasid: 7, addr: 0x2000n })).toMatchObject({ ioasid: 2, addr: 0x2000n });
    expect(table.resolve({ rid: 4, pasid: 7, addr: 0n })).toBeUndefined();
  });

  test('two devices of one parent in one address space are told apart by PASID: the question of the RFC', () => {
    const table = new AttachTable();
    table.add(first, undefined, 5);
    table.add(second, undefined, 5);
    expect(table.resolve({ rid: 9, pasid: 100, addr: 1n })).toEqual({ ioasid: 5, cookie: 1n, addr: 1n });
    expect(table.resolve({ rid: 9, pasid: 101, addr: 1n })).toEqual({ ioasid: 5, cookie: 2n, addr: 1n });
    expect(table.resolve({ rid: 9, pasid: 102, addr: 1n })).toBeUndefined();
  });

  test('a slot is never filled twice; the refusal names both cookies', () => {
    const table = new AttachTable();
    // ENQCMD in one virtual machine: one PASID of the guest is the same PASID of the parent for both.
    const shared = 555;
    table.add(first, shared, 5);
    for (const attach of [() => table.check(second, shared), () => table.add(second, shared, 5)])
      expect(errorOf(attach)).toMatchObject({
        code: 'EEXIST',
        reason:
          'device 0x2 would fill the routing slot of device 0x1, and their faults could not be told apart',
      });
    // In another virtual machine it is another.
    table.add(second, 556, 5);
    expect(errorOf(() => table.add(first, shared, 6))).toMatchObject({
      code: 'EEXIST',
      reason: 'device 0x1 is attached to IOASID 5 in this slot',
    });
    table.check(first, shared);
    expect(table.find(9, shared)?.device).toBe(first);
  });

  test('two physical devices of one RID would be taken for each other', () => {
    const table = new AttachTable();
    table.add(nic, undefined, 1);
    const alias: IommuDev = { rid: 3, defaultPasid: NO_PASID, cookie: 0x22n };
    expect(() => table.check(alias, undefined)).toThrow('EEXIST');
    table.check(alias, 8);
  });

  test('an unknown PASID belongs to the device slot, which may stand for a whole PASID table', () => {
    const table = new AttachTable();
    const data = table.add(nic, undefined, 1);
    expect(table.find(3, 1234)).toBe(data);
    expect(table.find(3, 2 ** 32 - 1)).toBe(data);
  });

  test('removing empties one slot only, and says what was there', () => {
    const table = new AttachTable();
    const [one, other] = [table.add(nic, 7, 2), table.add(nic, 8, 1)];
    expect(table.remove(nic, 7)).toBe(one);
    expect(table.remove(nic, 7)).toBeUndefined();
    expect(table.find(3, 7)).toBeUndefined();
    expect(table.find(3, 8)).toBe(other);
  });

  test('the largest numbers do not run into each other', () => {
    const table = new AttachTable();
    const last: IommuDev = { rid: 2 ** 32 - 1, defaultPasid: NO_PASID, cookie: 3n };
    const data = table.add(last, PASID_LIMIT - 1, 3);
    table.add({ ...last, rid: 2 ** 32 - 2 }, PASID_LIMIT - 1, 1);
    table.add(last, PASID_LIMIT - 2, 2);
    expect(table.find(2 ** 32 - 1, PASID_LIMIT - 1)).toBe(data);
    expect(() => table.check(last, PASID_LIMIT)).toThrow(RangeError);
    expect(() => table.check({ ...last, rid: 2 ** 32 }, 1)).toThrow(RangeError);
    expect(() => table.check(last, -1)).toThrow(RangeError);
  });
});
