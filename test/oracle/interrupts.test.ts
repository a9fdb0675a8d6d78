/** Interrupt remapping of our unit against QEMU's. ORACLE_SEED repeats a run. */
import { runInterrupts } from '../../scripts/oracle/interrupts';
import { INTERRUPT_QUIRKS, type QuirkName } from '../../scripts/oracle/quirks';
import { plant } from './mutants';
import { describeOracle, needQemu } from './qemu';

const SEED = Number(process.env['ORACLE_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
const TIMEOUT = 120_000;
const ACCESSES = 3000;

const QUIRKS = Object.keys(INTERRUPT_QUIRKS) as QuirkName[];

const run = (more = {}) =>
  runInterrupts({ seed: 1, accesses: ACCESSES, without: [], program: needQemu(), ...more });

describeOracle('QEMU agrees', () => {
  test(
    `about interrupts, seed ${SEED}`,
    async () => {
      const result = await run({ seed: SEED });
      expect(result).toMatchObject({ mismatches: 0, dumps: [], quirksUsed: QUIRKS.toSorted() });
      expect(result.faults).toBeGreaterThan(ACCESSES * 0.4);
      expect(result.faults).toBeLessThan(ACCESSES * 0.8);
    },
    TIMEOUT,
  );
});

describeOracle('every deviation listed is QEMU’s: without it there is a difference', () => {
  test.each(QUIRKS)(
    '%s',
    async (name) => {
      const { mismatches, dumps } = await run({ without: [name] });
      expect(mismatches).toBeGreaterThan(0);
      expect(dumps[0]).toMatch(/^entry \d .* message 0xfee\w+ 0x\w+:\n {2}QEMU: .*\n {2}ours: .*$/);
    },
    TIMEOUT,
  );
});

const MUTANTS = [
  ['SQ 1 and 2 are mixed up', 'interrupt-table.js', '[0, 0b100, 0b110, 0b111]', '[0, 0b110, 0b100, 0b111]'],
  [
    'the requester is not checked',
    'interrupt-remapper.js',
    'acceptsSource)(irte, rid)',
    'acceptsSource)(irte, irte.entry.SID)',
  ],
  ['the last bus is left out', 'interrupt-table.js', '<= (SID & 0xff)', '< (SID & 0xff)'],
  [
    'FPD counts only where P is 1',
    'interrupt-table.js',
    'IR_NOT_PRESENT, fpd,',
    'IR_NOT_PRESENT, fpd: false,',
  ],
  ['handle 15 is lost', 'interrupt-remapper.js', '((low >>> HANDLE_15_SHIFT) & 1) << 15', '0'],
  [
    'the subhandle always counts',
    'interrupt-remapper.js',
    'withSubhandle ? handle + (data & 0xffff) : handle',
    'handle + (data & 0xffff)',
  ],
  ['the table has an entry more', 'interrupt-remapper.js', 'index >= this.entries', 'index > this.entries'],
  ['destination and hints are mixed up', 'interrupt-remapper.js', 'DM !== 0 ? LOGICAL', 'RH !== 0 ? LOGICAL'],
  [
    'reserved bits are ignored',
    'interrupt-table.js',
    '(0, layout_1.anyBits)(words, exports.REMAPPED_IRTE.reserved)',
    'false',
  ],
  ['the index is not recorded', 'fault-recording.js', 'index << 16', '0'],
] as const;

describeOracle('a planted bug is found', () => {
  test.each(MUTANTS)(
    '%s',
    async (_name, file, from, to) => {
      const { create, remove } = plant({ file, from, to });
      try {
        expect((await run({ create, accesses: 5000 })).mismatches).toBeGreaterThan(0);
      } finally {
        remove();
      }
    },
    TIMEOUT,
  );
});
