/** Where the tests that ask QEMU run: where a recent QEMU is. */
import { findOracleQemu, type OracleQemu } from '../../scripts/oracle/find';
import { SetupError } from '../../scripts/vm/find';

function find(): OracleQemu | string {
  try {
    return findOracleQemu(process.env);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return error.message;
  }
}

const found = find();

/**
 * `describe` where QEMU is, or where IOMMUFD_ORACLE=required makes its absence a failure; elsewhere the tests are
 * skipped, and their name says why.
 */
export function describeOracle(name: string, tests: () => void): void {
  const isMissing = typeof found === 'string' && process.env['IOMMUFD_ORACLE'] !== 'required';
  if (isMissing) describe.skip(`${name} (${found.split('\n')[0]})`, tests);
  else describe(name, tests);
}

/** QEMU's program. Throws the reason where there is none. */
export function needQemu(): string {
  if (typeof found === 'string') throw new Error(found);
  return found.program;
}
