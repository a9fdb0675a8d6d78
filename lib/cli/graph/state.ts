/** Where a graph's state comes from: a program, or a file that one has written. */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { IommuDescription } from '../../describe';
import { codeOf } from '../command';

/** Why there is nothing to draw: for people, without a stack. */
export class StateError extends Error {
  constructor(
    message: string,
    /** Of the system call that failed, such as 'ENOENT'. */
    readonly code?: string,
  ) {
    super(message);
  }
}

/** That a file cannot be read or written. */
export function fileError(path: string, error: unknown): StateError {
  return new StateError(`${path}: ${error instanceof Error ? error.message : String(error)}`, codeOf(error));
}

/** What `describe()` of each Iommu said. Throws StateError, or what the program throws. */
export async function readState(path: string): Promise<IommuDescription[]> {
  return path.endsWith('.json') ? readJson(path) : describeProgram(path);
}

function readJson(path: string): IommuDescription[] {
  let state: unknown;
  try {
    state = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw fileError(path, error);
  }
  const list: unknown[] = Array.isArray(state) ? state : [state];
  if (list.length === 0 || !list.every(isDescription))
    throw new StateError(`${path} has no state: write JSON.stringify(iommu.describe()) to it`);
  return list;
}

function isDescription(value: unknown): value is IommuDescription {
  if (typeof value !== 'object' || value === null) return false;
  const parts = [
    'devices',
    'groups',
    'spaces',
    'buffers',
    'faultQueues',
  ] satisfies (keyof IommuDescription)[];
  return parts.every((part) => Array.isArray((value as Record<string, unknown>)[part]));
}

/** What a program exports that can describe itself: by its shape, as the program may have another copy of this package. */
interface Describable {
  describe(): unknown;
}

/** Runs a program up to its end, or its first wait that is no `await` of the module's own, and asks the Iommus it exports. */
async function describeProgram(path: string): Promise<IommuDescription[]> {
  requireFile(path);
  const exported = (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
  // A CommonJS module's exports are the default export too.
  const values = new Set(Object.values(exported).flatMap((value) => [value, ...Object.values(value ?? {})]));
  const states = [...values].filter(isDescribable).map((iommu) => iommu.describe());
  const found = states.filter(isDescription);
  if (found.length > 0) return found;
  throw new StateError(`${path} exports no Iommu: add \`export { iommu }\`, and leave it open`);
}

/** What the program itself does not find has a stack, which says where; that there is no program needs none. */
function requireFile(path: string): void {
  try {
    accessSync(path, constants.R_OK);
  } catch (error) {
    throw fileError(path, error);
  }
  if (!statSync(path).isFile()) throw new StateError(`${path} is no file`, 'EISDIR');
}

function isDescribable(value: unknown): value is Describable {
  if (typeof value !== 'object' || value === null || !('describe' in value)) return false;
  const closed = 'closed' in value && value.closed === true;
  return typeof value.describe === 'function' && !closed;
}
