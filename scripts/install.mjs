/**
 * The npm `install` script: builds the native addon where it can, and lets the installation succeed where it cannot,
 * for the simulated backend needs none; with `--required` (`iommufd build`) it fails then. Plain JavaScript, because it
 * runs before anything is compiled.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const LAST_LINES = 8;
const GYP_ERROR = 'gyp ERR! stack Error: ';
const NOISE = /^gyp (info|ERR! (stack at|System|command|cwd|node|not ok))/;

/** Ways to start node-gyp: npm puts it on PATH for its scripts; a clone has its own; npm itself brings one. */
function nodeGyps() {
  const scripts = [join(root, 'node_modules/node-gyp/bin/node-gyp.js'), process.env.npm_config_node_gyp];
  return [
    ['node-gyp'],
    ...scripts.filter((script) => script && existsSync(script)).map((script) => [process.execPath, script]),
  ];
}

/** The headers that came with this Node, which save a download; node-gyp's own settings come first. */
function headerOptions() {
  const prefix = dirname(dirname(process.execPath));
  const set = process.env.npm_config_nodedir;
  const there = ['node_api.h', 'common.gypi', 'config.gypi'].every((file) =>
    existsSync(join(prefix, 'include/node', file)),
  );
  return !set && there ? [`--nodedir=${prefix}`] : [];
}

/** Builds the addon. Returns undefined, or what went wrong and the log. */
function build() {
  for (const [command, ...args] of nodeGyps()) {
    const run = spawnSync(command, [...args, 'rebuild', ...headerOptions()], {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 64 * 1024 * 1024,
    });
    if (run.error?.code === 'ENOENT') continue;
    if (run.error) return { cause: run.error.message, log: '' };
    if (run.status === 0) return undefined;
    const log = `${run.stdout}\n${run.stderr}`;
    return { cause: causeIn(log) ?? `node-gyp ended with status ${run.status}`, log };
  }
  return { cause: 'node-gyp was not found', log: '' };
}

/** What a build log says first of make or the compiler; else what node-gyp says. */
function causeIn(log) {
  const lines = log.split('\n').map((line) => line.trim());
  const tool = lines.find(
    (line) => !line.startsWith('gyp') && /not found$|No such file or directory|error:/.test(line),
  );
  const gyp = lines.find((line) => line.startsWith(GYP_ERROR));
  return tool ?? gyp?.slice(GYP_ERROR.length);
}

function explain({ cause, log }) {
  const telling = log.split('\n').filter((line) => line.trim() && !NOISE.test(line));
  for (const line of telling.slice(-LAST_LINES)) console.error(`  ${line}`);
  console.error(`iommufd: the native addon for Linux was not built: ${cause}`);
  console.error(
    'iommufd: the simulated backend works without. To build it later (Python 3, make, C++ compiler): npx iommufd build; in a clone: npm run install',
  );
}

const required = process.argv.includes('--required');
if (process.env.IOMMUFD_SKIP_BUILD === '1' && !required) {
  console.error('iommufd: IOMMUFD_SKIP_BUILD=1: the native addon is not built; the simulated backend works');
} else {
  const failure =
    process.platform === 'linux' ? build() : { cause: `this is ${process.platform}, not Linux`, log: '' };
  if (failure) {
    explain(failure);
    if (required) process.exitCode = 1;
  }
}
