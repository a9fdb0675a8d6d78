import {
  ACCESS_EXECUTE,
  ACCESS_PRIVILEGED,
  ACCESS_TRANSLATED,
  ACCESS_WRITE,
  NO_PASID,
  PRG_FAILURE,
  PRG_INVALID,
  PRG_SUCCESS,
} from '../../../lib/sim/bus';
import * as reg from '../../../lib/sim/devices/dma-engine-registers';
import * as pci from '../../../lib/sim/devices/pci-registers';
import { Bench, DONE, ended, PASID, pattern } from './dma-engine-bench';
import { PAGE } from './fake-port';

const R = reg.dmaEngine;
const ATS = reg.CONTROL_ATS;
const PRI = reg.CONTROL_PAGE_REQUESTS;
const { OPERATION_COPY: COPY, OPERATION_FILL: FILL, OPERATION_READ: READ } = reg;

describe('address translation', () => {
  test('each page is translated once, and reached with translated requests without PASID', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.port.map(PASID, 0x20, 3);
    const data = pattern(100);
    bench.port.memory.set(data, PAGE);
    bench.run(COPY | ATS, 0x10000, 0x20100, 50);
    bench.run(COPY | ATS, 0x10032, 0x20132, 50);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.memory.slice(3 * PAGE + 0x100, 3 * PAGE + 0x164)).toEqual(data);
    expect(bench.port.translations).toEqual([
      { pasid: PASID, page: 0x10, access: 0 },
      { pasid: PASID, page: 0x20, access: ACCESS_WRITE },
    ]);
    expect(bench.port.requests.slice(0, 2)).toEqual([
      { kind: 'read', pasid: NO_PASID, page: 1, access: ACCESS_TRANSLATED },
      { kind: 'write', pasid: NO_PASID, page: 3, access: ACCESS_TRANSLATED | ACCESS_WRITE },
    ]);
    expect([bench.read(R.TRANSLATIONS), bench.read(R.PAGE_REQUESTS)]).toEqual([2, 0]);
  });

  test('one completion may serve many pages', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 0x10, { pages: 16 });
    bench.run(FILL | ATS, 0, 0x10000, 16 * PAGE);
    expect(bench.status).toEqual(DONE);
    expect([bench.read(R.TRANSLATIONS), bench.read(R.CACHE_HITS)]).toEqual([1, 16]);
    expect(bench.port.requests.map(({ page }) => page)).toEqual([...Array(16).keys()].map((i) => 0x10 + i));
  });

  test('modes travel in the translation request', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1, { execute: true });
    const modes = reg.CONTROL_EXECUTE | reg.CONTROL_PRIVILEGED;
    bench.run(READ | ATS | modes | reg.CONTROL_REQUEST_WRITE, 0x10000, 0, 4);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.translations[0].access).toBe(ACCESS_EXECUTE | ACCESS_PRIVILEGED | ACCESS_WRITE);
    expect(bench.port.requests).toEqual([
      { kind: 'read', pasid: NO_PASID, page: 1, access: ACCESS_TRANSLATED },
    ]);
    bench.run(READ | modes, 0x10000, 0, 4);
    expect(bench.port.requests[1]).toMatchObject({
      pasid: PASID,
      access: ACCESS_EXECUTE | ACCESS_PRIVILEGED,
    });
  });

  test('untranslated-only ranges are reached as they are', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1, { untranslatedOnly: true });
    bench.run(FILL | ATS, 0, 0x10000, 4);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.requests).toEqual([{ kind: 'write', pasid: PASID, page: 0x10, access: ACCESS_WRITE }]);
  });

  test('an unsuccessful completion, and a page without permission', () => {
    const bench = new Bench();
    bench.run(READ | ATS, 0x10008, 0, 4);
    expect(bench.status).toEqual(ended(reg.ERROR_NO_ACCESS));
    expect(bench.read64(R.FAULT_ADDRESS)).toBe(0x10008);
    bench.port.ats = false;
    bench.run(FILL | ATS | PRI, 0, 0x20008, 4);
    expect(bench.status).toEqual(ended(reg.ERROR_TRANSLATION, true));
    expect(bench.read64(R.FAULT_ADDRESS)).toBe(0x20008);
  });

  test('with ATS off in configuration space there is no translation to be had', () => {
    const bench = new Bench();
    const ats = bench.device.config.extendedCapability(pci.EXTENDED_CAPABILITY_ATS);
    bench.device.config.write(ats + pci.ATS_CONTROL, 2, 0);
    bench.run(FILL | ATS, 0, 0x10000, 4);
    expect([bench.status, bench.port.translations]).toEqual([ended(reg.ERROR_TRANSLATION, true), []]);
  });

  test('a read-only page that is to be written is asked for again', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.run(READ | ATS, 0x10000, 0, 4);
    bench.run(COPY | ATS, 0x10000, 0x10800, 4);
    expect(bench.status).toEqual(DONE);
    expect(bench.read(R.TRANSLATIONS)).toBe(2);
  });

  test('an invalidation between translation and access is honoured at every event', () => {
    // A run of the same copy for each event after which the mapping moves: data goes where the mapping was
    // when it was accessed, never to a page given back.
    for (let moveAt = 1; ; moveAt++) {
      const bench = new Bench();
      bench.port.map(PASID, 0x10, 1);
      bench.write(R.PATTERN, 0x01010101);
      bench.start(FILL | ATS, 0, 0x10000, 16);
      let events = 0;
      for (; events < moveAt && bench.port.clock.step(); events++);
      const written = bench.port.memory[PAGE] === 1;
      bench.port.map(PASID, 0x10, 2);
      bench.port.memory.fill(0, PAGE, 2 * PAGE);
      bench.device.invalidateTranslations(PASID, 0, 0x10000, PAGE, false);
      bench.port.clock.idle();
      expect(bench.status).toEqual(DONE);
      expect(bench.read(R.INVALIDATIONS)).toBe(1);
      expect([moveAt, bench.port.memory[PAGE], bench.port.memory[2 * PAGE]]).toEqual([
        moveAt,
        0,
        written ? 0 : 1,
      ]);
      if (events < moveAt) break;
      expect(moveAt).toBeLessThan(20);
    }
  });
});

describe('page requests', () => {
  test('a missing page is asked for, and the command goes on when it is there', () => {
    const bench = new Bench();
    bench.port.map(PASID, 0x10, 1);
    bench.port.memory.set(pattern(16), PAGE);
    bench.run(COPY | ATS | PRI, 0x10000, 0x7fff_1234_5008, 16);
    expect(bench.status).toEqual([reg.STATUS_BUSY | reg.STATUS_WAITING, 0]);
    expect(bench.port.pageRequests).toEqual([
      {
        pasid: PASID,
        high: 0x7fff,
        low: 0x12345000,
        read: false,
        write: true,
        execute: false,
        privileged: false,
        last: true,
        prgIndex: 0,
      },
    ]);
    bench.port.map(PASID, 0x7fff_1234_5, 2);
    bench.respond(PRG_SUCCESS);
    expect(bench.status).toEqual(DONE);
    expect(bench.port.memory.slice(2 * PAGE + 8, 2 * PAGE + 24)).toEqual(pattern(16));
    expect(bench.messages).toEqual([0x50]);
  });

  test('what is asked of a source', () => {
    const bench = new Bench();
    const control = READ | ATS | PRI | reg.CONTROL_EXECUTE | reg.CONTROL_PRIVILEGED;
    bench.run(control | reg.CONTROL_REQUEST_WRITE, 0x10000, 0, 4);
    expect(bench.port.pageRequests[0]).toMatchObject({
      read: true,
      write: true,
      execute: true,
      privileged: true,
    });
    const plain = new Bench();
    plain.run(READ | ATS | PRI, 0x10000, 0, 4, NO_PASID);
    expect(plain.port.pageRequests[0]).toMatchObject({ pasid: NO_PASID, read: true, write: false });
  });

  test.each([
    [PRG_INVALID, reg.ERROR_PAGE_INVALID],
    [PRG_FAILURE, reg.ERROR_PAGE_FAILURE],
  ])('response %p ends the command with error %p', (code, error) => {
    const bench = new Bench();
    bench.run(FILL | ATS | PRI, 0, 0x10010, 4);
    bench.respond(code);
    expect(bench.status).toEqual(ended(error, true));
    expect(bench.read64(R.FAULT_ADDRESS)).toBe(0x10010);
    expect(bench.messages).toEqual([0x51]);
  });

  test('a group of pages, of which only the last has L, and one response', () => {
    const bench = new Bench();
    bench.write(R.PREFETCH, 8);
    bench.run(FILL | ATS | PRI, 0, 0x10800, 3 * PAGE);
    const requests = bench.port.pageRequests;
    expect(requests.map(({ low }) => low)).toEqual([0x10000, 0x11000, 0x12000, 0x13000]);
    expect(requests.map(({ last }) => last)).toEqual([false, false, false, true]);
    expect(new Set(requests.map(({ prgIndex }) => prgIndex))).toEqual(new Set([0]));
    for (let page = 0x10; page < 0x14; page++) bench.port.map(PASID, page, page);
    bench.respond(PRG_SUCCESS);
    expect(bench.status).toEqual(DONE);
    expect([bench.read(R.PAGE_REQUESTS), bench.read(R.COMPLETED)]).toEqual([4, 3 * PAGE]);
  });

  test('a group is no larger than the credits', () => {
    const bench = new Bench(2);
    bench.write(R.PREFETCH, 8);
    bench.run(FILL | ATS | PRI, 0, 0x10000, 3 * PAGE);
    expect(bench.port.pageRequests.map(({ last }) => last)).toEqual([false, true]);
    const none = new Bench(0);
    none.run(FILL | ATS | PRI, 0, 0x10000, PAGE);
    expect(none.status).toEqual(ended(reg.ERROR_PAGE_REQUEST, true));
  });

  test('groups in sequence have indices of their own', () => {
    const bench = new Bench();
    bench.start(FILL | ATS | PRI, 0, 0x10000, 3 * PAGE);
    for (let page = 0x10; page < 0x13; page++) {
      bench.port.clock.idle();
      bench.port.map(PASID, page, page);
      bench.respond(PRG_SUCCESS);
    }
    expect(bench.status).toEqual(DONE);
    expect(bench.port.pageRequests.map(({ prgIndex }) => prgIndex)).toEqual([0, 1, 2]);
  });

  test('a command may ask for any number of pages, one after the other', () => {
    const bench = new Bench();
    bench.start(FILL | ATS | PRI, 0, 0x10000, 20 * PAGE);
    for (let page = 0x10; page < 0x24; page++) {
      bench.port.clock.idle();
      bench.port.map(PASID, page, page);
      bench.respond(PRG_SUCCESS);
    }
    expect([bench.status, bench.read(R.PAGE_REQUESTS)]).toEqual([DONE, 20]);
  });

  test('indices go round, past one that is still in flight', () => {
    const bench = new Bench();
    const fault = (): void => bench.run(READ | ATS | PRI, 0x10000, 0, 4);
    fault();
    bench.write(R.CONTROL, reg.CONTROL_ABORT);
    for (let i = 1; i <= 512; i++) {
      fault();
      bench.respond(PRG_INVALID);
    }
    const indices = bench.port.pageRequests.map(({ prgIndex }) => prgIndex);
    expect(indices).toEqual([...Array(512).keys(), 1]);
  });

  test('success without a mapping is believed a few times', () => {
    const bench = new Bench();
    bench.run(FILL | ATS | PRI, 0, 0x10000, 4);
    let responses = 0;
    while ((bench.read(R.STATUS) & reg.STATUS_WAITING) !== 0) {
      bench.respond(PRG_SUCCESS);
      responses++;
    }
    expect(responses).toBe(8);
    expect(bench.status).toEqual(ended(reg.ERROR_NO_ACCESS, true));
  });

  test('the root may refuse, also in the middle of a group, and may answer at once', () => {
    const refused = new Bench();
    refused.port.pri = false;
    refused.run(FILL | ATS | PRI, 0, 0x10000, 4);
    expect(refused.status).toEqual(ended(reg.ERROR_PAGE_REQUEST, true));

    const half = new Bench(4);
    half.write(R.PREFETCH, 3);
    half.port.pri = (request) => request.low !== 0x11000;
    half.run(FILL | ATS | PRI, 0, 0x10000, 3 * PAGE);
    expect(half.status).toEqual(ended(reg.ERROR_PAGE_REQUEST, true));
    half.port.pri = true;
    half.write(R.PREFETCH, 4);
    half.run(FILL | ATS | PRI, 0, 0x10000, 4 * PAGE);
    // All four credits are back: one request of the first group, four of this one.
    expect(half.port.pageRequests.map(({ last }) => last)).toEqual([false, false, false, false, true]);

    const prompt = new Bench();
    prompt.write(R.PREFETCH, 3);
    prompt.port.pri = ({ pasid, prgIndex }) => {
      prompt.device.pageGroupResponse(pasid, prgIndex, PRG_INVALID);
      return true;
    };
    prompt.run(FILL | ATS | PRI, 0, 0x10000, 3 * PAGE);
    expect(prompt.status).toEqual(ended(reg.ERROR_PAGE_INVALID, true));
    expect(prompt.port.pageRequests).toHaveLength(1);
  });

  test('ABORT gives up the wait; the late response changes nothing, and its index is not reused before', () => {
    const bench = new Bench();
    bench.run(FILL | ATS | PRI, 0, 0x10000, 4);
    bench.write(R.CONTROL, reg.CONTROL_ABORT);
    expect(bench.status).toEqual(ended(reg.ERROR_ABORTED));
    expect(bench.messages).toEqual([0x51]);
    bench.run(FILL | ATS | PRI, 0, 0x10000, 4);
    expect(bench.port.pageRequests.map(({ prgIndex }) => prgIndex)).toEqual([0, 1]);
    bench.port.map(PASID, 0x10, 1);
    bench.device.pageGroupResponse(PASID, 0, PRG_SUCCESS);
    bench.port.clock.idle();
    expect(bench.status).toEqual([reg.STATUS_BUSY | reg.STATUS_WAITING, 0]);
    bench.respond(PRG_SUCCESS);
    expect(bench.status).toEqual(DONE);
  });
});
