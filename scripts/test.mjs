// `npm test [-- sim|vm|all]`: builds, runs the tests of this machine, then those that need a real /dev/iommu in a VM.
// The last line counts all of them.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const REPORTS = join(ROOT, 'reports');
const JEST = join(ROOT, 'node_modules', 'jest', 'bin', 'jest.js');
const TSC = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
/** An NVMe disk with protection information: test/contract/nvme-protected.test.ts. */
const PROTECTED_DISK = [
  ...['--device', 'nvme,id=protected,serial=protected,addr=9'],
  ...['--device', 'nvme-ns,bus=protected,drive=protected,ms=8,pi=1'],
];
const VM = join(ROOT, 'dist', 'scripts', 'vm');
const GUEST_TIMEOUT = 1500;
const MODULES = ['mdev', 'mtty'];

function node(args, env = {}) {
  const { status } = spawnSync(process.execPath, args, {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  return status === 0;
}

function report(name) {
  const path = join(REPORTS, `${name}.json`);
  mkdirSync(REPORTS, { recursive: true });
  rmSync(path, { force: true });
  return path;
}

/** What a report says; a run that left none is one failure. */
function count(ok, path) {
  try {
    const found = JSON.parse(readFileSync(path, 'utf8'));
    const failed = found.numFailedTests + found.numRuntimeErrorTestSuites;
    // Jest can fail otherwise, as when a test leaves an error behind.
    return {
      passed: found.numPassedTests,
      failed: !ok && failed === 0 ? 1 : failed,
      skipped: found.numPendingTests + found.numTodoTests,
    };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

function host() {
  const path = report('host');
  const args = [
    JEST,
    '--testPathIgnorePatterns',
    '/dist/test/vm-(guest|host)/',
    '--json',
    '--outputFile',
    path,
  ];
  // Also where there is a /dev/iommu: these tests are not meant for its devices. A simulated driver that leaves out an
  // invalidation fails them.
  return count(node(args, { IOMMUFD_BACKEND: 'simulated', IOMMUFD_STRICT: '1' }), path);
}

function missingForVm() {
  const { findKernel, findQemu } = createRequire(import.meta.url)(join(VM, 'find.js'));
  try {
    findQemu(undefined, process.env);
    findKernel(undefined, process.env);
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** Options that load the sample mediated device, where it was built with the guest's kernel. */
function sampleModules() {
  const { findKernel, findModuleFiles } = createRequire(import.meta.url)(join(VM, 'find.js'));
  try {
    findModuleFiles(findKernel(undefined, process.env), MODULES);
    return MODULES.flatMap((name) => ['--module', name]);
  } catch (error) {
    console.log(`\nThe tests of mediated devices on Linux are skipped. ${error.message}`);
    return [];
  }
}

function guest() {
  const missing = missingForVm();
  if (missing !== undefined) {
    const required = process.env.IOMMUFD_VM === 'required';
    console.log(`\nThe tests on a real /dev/iommu, in a VM, were not run.\n${missing}\n`);
    return { passed: 0, failed: required ? 1 : 0, skipped: 0 };
  }
  console.log('\nTests on a real /dev/iommu, in a VM:');
  const everything = inGuest(
    'vm',
    [...sampleModules(), ...PROTECTED_DISK],
    '/dist/test/(contract|vm-guest)/',
  );
  console.log('\nTests on a real /dev/iommu without an IOMMU, in a VM:');
  const without = inGuest('vm-noiommu', ['--iommu', 'none'], '/dist/test/contract/noiommu');
  console.log('\nTests that start VMs of their own:');
  return [everything, without, startingGuests()].reduce(add);
}

function startingGuests() {
  const path = report('vm-host');
  const jest = [JEST, '--runInBand', '--testPathPatterns', '/dist/test/vm-host/'];
  return count(node([...jest, '--json', '--outputFile', path]), path);
}

function add(one, other) {
  return Object.fromEntries(Object.keys(one).map((kind) => [kind, one[kind] + other[kind]]));
}

/** Runs the tests whose paths match in a guest of its own. */
function inGuest(name, options, pattern) {
  const path = report(name);
  const jest = [
    ...[process.execPath, JEST, '--runInBand', '--cacheDirectory', '/tmp/jest', '--testTimeout', '60000'],
    // Emulated, the guest takes seconds to list what it does not need.
    ...['--watchman=false', '--roots', join(ROOT, 'dist')],
    ...['--json', '--outputFile', path, '--testPathPatterns', pattern],
  ];
  const run = ['--timeout', String(GUEST_TIMEOUT), '--share', REPORTS, ...options, '--', ...jest];
  const tests = () => node([join(VM, 'main.js'), ...run], { IOMMUFD_BACKEND: 'linux' });
  let ok = tests();
  if (!existsSync(path)) {
    // An emulated machine loses an interrupt now and then, and waits for it for ever: that says nothing about the tests.
    console.log('\nThe guest left no report. Once more:');
    ok = tests();
  }
  return count(ok, path);
}

function main(what) {
  const parts = { sim: [host], vm: [guest], all: [host, guest] }[what];
  if (parts === undefined) {
    console.error(`usage: npm test [-- sim|vm|all]; there is no '${what}'`);
    return 2;
  }
  if (!node([TSC, '-p', '.'])) {
    console.log('the build failed\n0 passed, 1 failed');
    return 1;
  }
  let total = { passed: 0, failed: 0, skipped: 0 };
  for (const part of parts) total = add(total, part());
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
  console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
  return total.failed === 0 ? 0 : 1;
}

process.exitCode = main(process.argv[2] ?? 'all');
