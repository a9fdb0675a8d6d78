// `npm run lint`: formatting, lint with types, layering, native formatting. Ends with status 1 when a check failed.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const BIN = join(ROOT, 'node_modules', '.bin');

function run(name, program, args) {
  const { status, error } = spawnSync(program, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  if (error) console.error(`${name}: ${error.message}`);
  const passed = status === 0;
  console.log(`${passed ? 'ok    ' : 'FAILED'} ${name}`);
  return passed;
}

function sources(folder, endings) {
  const path = join(ROOT, folder);
  if (!existsSync(path)) return [];
  const names = readdirSync(path, { recursive: true });
  return names.filter((name) => endings.test(name)).map((name) => join(folder, name));
}

function native() {
  const files = ['native', 'scripts/bench', 'scripts/soak', 'test/native'].flatMap((folder) =>
    sources(folder, /\.(c|cc|h)$/),
  );
  if (files.length === 0) return true;
  const found = spawnSync('clang-format', ['--version']).status === 0;
  if (found) return run('clang-format', 'clang-format', ['--dry-run', '-Werror', ...files]);
  console.log('       clang-format is not installed: the format of native/ was not checked');
  return true;
}

// Named folders: given none, oxlint would walk node_modules.
const folders = ['lib', 'test', 'scripts', 'examples'].filter((folder) => existsSync(join(ROOT, folder)));
const results = [
  run('prettier', join(BIN, 'prettier'), ['--check', '--log-level', 'warn', '.']),
  run('oxlint', join(BIN, 'oxlint'), ['--type-aware', '--deny-warnings', ...folders]),
  native(),
];
process.exitCode = results.every(Boolean) ? 0 : 1;
