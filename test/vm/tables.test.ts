// The host's side of a dump of tables: the guest's memory as a file, and what the guest sends.
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { createServer, createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestMemory, parseFiles, serveTables, type TablesTaker } from '../../scripts/vm/tables';
import { memoryBytes } from '../../scripts/vm/options';

const GIB = 2 ** 30;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iommufd-test-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function memory(bytes: number, ...marks: number[]): GuestMemory {
  const fd = openSync(join(folder, 'memory'), 'w+');
  ftruncateSync(fd, bytes);
  for (const [i, offset] of marks.entries()) writeSync(fd, Buffer.of(i + 1), 0, 1, offset);
  return new GuestMemory(fd, bytes);
}

describe('the memory of a guest', () => {
  it('goes on at 4 GiB where 2 GiB do not hold it', () => {
    const guest = memory(4 * GIB, 0, 2 * GIB - 4096, 2 * GIB, 4 * GIB - 4096);
    const addresses = [0n, 0x7fff_f000n, 0x1_0000_0000n, 0x1_7fff_f000n];
    expect(addresses.map((address) => guest.page(address)[0])).toEqual([1, 2, 3, 4]);
    for (const address of [0x8000_0000n, 0xffff_f000n, 0x1_8000_0000n, 1n])
      expect(() => guest.page(address)).toThrow(RangeError);
    guest.close();
  });

  it('ends where it ends', () => {
    const guest = memory(GIB, GIB - 4096);
    expect(guest.page(BigInt(GIB - 4096))[0]).toBe(1);
    for (const address of [BigInt(GIB), 0x1_0000_0000n])
      expect(() => guest.page(address)).toThrow(RangeError);
    guest.close();
  });

  it('is closed once', () => {
    const guest = memory(4096);
    guest.close();
    const again = openSync(join(folder, 'memory'), 'r');
    guest.close();
    expect(() => closeSync(again)).not.toThrow();
  });

  it('has the size that --memory says', () => {
    expect([memoryBytes('512M'), memoryBytes('4G')]).toEqual([GIB / 2, 4 * GIB]);
  });
});

/** Both ends of a connection, the host's served. */
async function connect(
  take: TablesTaker,
): Promise<{ guest: Socket; answer: () => Promise<string>; end: () => void }> {
  const server = createServer((socket) => serveTables(socket, memory(4096), take));
  await new Promise<void>((done) => server.listen(join(folder, 'socket'), done));
  const guest = createConnection(join(folder, 'socket'));
  const answer = () => new Promise<string>((done) => guest.once('data', (chunk) => done(chunk.toString())));
  const end = () => {
    guest.end();
    server.close();
  };
  return { guest, answer, end };
}

describe('what the guest sends', () => {
  it('is files under their names', () => {
    expect([...parseFiles('=== a\n1\n=2\n=== b/c\n=== d\n\n')]).toEqual([
      ['a', '1\n=2\n'],
      ['b/c', ''],
      ['d', '\n'],
    ]);
  });

  it('is taken once all of it is there, and answered', async () => {
    const taken: string[] = [];
    const { guest, answer, end } = await connect((files) => taken.push(...files.keys()));
    guest.write('1');
    guest.write('2\n=== a\n');
    await new Promise((done) => setTimeout(done, 50));
    expect(taken).toEqual([]);
    guest.write('text\n\n');
    expect(await answer()).toBe('\n');
    expect(taken).toEqual(['a']);
    guest.write('6\n=== b\n');
    expect(await answer()).toBe('\n');
    expect(taken).toEqual(['a', 'b']);
    end();
  });

  it('is answered with what is wrong with it', async () => {
    const { guest, answer, end } = await connect(() => {
      throw new RangeError('no\nway');
    });
    guest.write('0\n');
    expect(await answer()).toBe('no way\n');
    end();
  });
});
