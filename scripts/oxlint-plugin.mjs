// Two lint rules of our own: imports point down the picture in docs/architecture.md, and functions in tests stay short.
import { existsSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');

// The first layer that a file is in decides. `own`: what it may import of lib/ (a folder ends with a slash);
// `outside`: whether it may import packages and Node's modules.
const LAYERS = [
  { path: 'lib/uapi/', own: ['lib/uapi/'], outside: false },
  { path: 'lib/rings/', own: ['lib/rings/', 'lib/kernel.ts', 'lib/uapi/'], outside: false },
  { path: 'lib/kernel.ts', own: ['lib/uapi/', 'lib/rings/pump.ts'], outside: false },
  // What drivers and simulated devices share.
  { path: 'lib/register-map.ts', own: [], outside: false },
  { path: 'lib/register-cell.ts', own: ['lib/register-map.ts'], outside: false },
  { path: 'lib/linux/', own: ['lib/linux/', 'lib/kernel.ts', 'lib/rings/', 'lib/uapi/'], outside: true },
  {
    path: 'lib/sim/vtd/',
    // What the registers report, drivers read: one list of fields for both.
    own: ['lib/sim/vtd/', 'lib/sim/memory.ts', 'lib/sim/bus.ts', 'lib/uapi/vtd-registers.ts'],
    outside: false,
  },
  {
    path: 'lib/sim/devices/',
    own: [
      'lib/sim/devices/',
      'lib/sim/memory.ts',
      'lib/sim/bus.ts',
      'lib/register-map.ts',
      'lib/register-cell.ts',
    ],
    outside: false,
  },
  { path: 'lib/sim/memory.ts', own: ['lib/sim/bus.ts'], outside: false },
  { path: 'lib/sim/bus.ts', own: ['lib/sim/memory.ts'], outside: false },
  { path: 'lib/sim/', own: ['lib/sim/', 'lib/kernel.ts', 'lib/register-map.ts', 'lib/uapi/'], outside: true },
  // The one place that knows both backends.
  { path: 'lib/open-kernel.ts', own: ['lib/*.ts', 'lib/uapi/', 'lib/linux/', 'lib/sim/'], outside: true },
  {
    path: 'lib/cli/',
    // The files of this machine must be there for reading where the addon is not.
    own: ['lib/cli/', 'lib/*.ts', 'lib/uapi/', 'lib/linux/files.ts'],
    outside: true,
  },
  { path: 'lib/', own: ['lib/*.ts', 'lib/rings/', 'lib/uapi/'], outside: true },
];

function isIn(path, place) {
  if (place === 'lib/*.ts') return dirname(path) === 'lib';
  return place.endsWith('/') ? path.startsWith(place) : path === place;
}

/** The file that a relative import means, from the root. */
function resolveImport(file, specifier) {
  const path = join(dirname(file), specifier).replace(/\/$/, '');
  return existsSync(join(ROOT, `${path}.ts`)) ? `${path}.ts` : `${path}/index.ts`;
}

/** What an import of `specifier` in `file` (from the root) breaks, or undefined. */
export function layerViolation(file, specifier) {
  const layer = LAYERS.find(({ path }) => isIn(file, path));
  if (layer === undefined) return undefined;
  if (!specifier.startsWith('.')) {
    if (/^bindings$|^node-gyp-build$|\.node$/.test(specifier) && layer.path !== 'lib/linux/') {
      return 'only lib/linux loads the addon';
    }
    return layer.outside ? undefined : `${layer.path} is pure: it imports no package and no module of Node`;
  }
  const target = resolveImport(file, specifier);
  if (!isIn(target, 'lib/')) return `lib imports only from lib, not ${target}`;
  const allowed = layer.own.some((place) => isIn(target, place) || isIn(`${target}.ts`, place));
  return allowed
    ? undefined
    : `imports point down: ${layer.path} may import ${layer.own.join(', ')}, not ${target}`;
}

const importsPointDown = {
  create(context) {
    const file = relative(ROOT, context.filename).replaceAll('\\', '/');
    const check = (source) => {
      if (typeof source?.value !== 'string') return;
      const message = layerViolation(file, source.value);
      if (message !== undefined) context.report({ node: source, message });
    };
    return {
      ImportDeclaration: (node) => check(node.source),
      ExportNamedDeclaration: (node) => check(node.source),
      ExportAllDeclaration: (node) => check(node.source),
      ImportExpression: (node) => check(node.source),
      TSImportType: (node) => check(node.source ?? node.argument),
      TSExternalModuleReference: (node) => check(node.expression),
      CallExpression: (node) => node.callee.name === 'require' && check(node.arguments[0]),
    };
  },
};

const TEST_CALLS = new Set(['describe', 'it', 'test']);

/** `it(…)`, `it.only(…)`, `it.each(…)(…)` and the like */
function isTestCall(node) {
  if (node.type === 'CallExpression') return isTestCall(node.callee);
  if (node.type === 'TaggedTemplateExpression') return isTestCall(node.tag);
  return node.type === 'MemberExpression' ? isTestCall(node.object) : TEST_CALLS.has(node.name);
}

/** A function that declares tests, as what is given to describe does: it may be as long as its file. */
function declaresTests(node) {
  const statements = node.body?.type === 'BlockStatement' ? node.body.body : [];
  return statements.some(
    ({ type, expression }) =>
      type === 'ExpressionStatement' && expression.type === 'CallExpression' && isTestCall(expression),
  );
}

const testFunctionLength = {
  create(context) {
    const most = 60;
    const check = (node) => {
      const lines = node.loc.end.line - node.loc.start.line + 1;
      if (lines > most && !declaresTests(node)) {
        context.report({ node, message: `a function of ${lines} lines: at most ${most}` });
      }
    };
    return { FunctionDeclaration: check, FunctionExpression: check, ArrowFunctionExpression: check };
  },
};

export default {
  meta: { name: 'iommufd' },
  rules: { 'imports-point-down': importsPointDown, 'test-function-length': testFunctionLength },
};
