/** A tree of small text files, directories and links: how the simulated kernel shows sysfs and /dev. */
import { errno } from '../../uapi/errno';

export type Node = Directory | TextFile | Link;

export interface Directory {
  readonly kind: 'directory';
  /** Made anew at each look: the tree follows the machine. */
  entries(): Readonly<Record<string, Node>>;
}

export interface TextFile {
  readonly kind: 'file';
  /** Absent: the file cannot be read. */
  readonly read?: () => string;
  /** Absent: the file cannot be written. Returns 0 or -errno. */
  readonly write?: (text: string) => number;
}

export interface Link {
  readonly kind: 'link';
  /** As readlink(2) gives it: relative to the link's directory, or absolute. */
  readonly target: string;
}

export const directory = (entries: () => Readonly<Record<string, Node>>): Directory => ({
  kind: 'directory',
  entries,
});
export const text = (read: () => string): TextFile => ({ kind: 'file', read: () => `${read()}\n` });
export const control = (write: (text: string) => number): TextFile => ({ kind: 'file', write });
export const link = (target: string): Link => ({ kind: 'link', target });

/** Most links one path may go through (Linux's MAXSYMLINKS). */
const MOST_LINKS = 40;

function namesOf(path: string): string[] {
  return path.split('/').filter((name) => name && name !== '.');
}

export class FileTree {
  constructor(readonly root: Directory) {}

  readdir(path: string): string[] | number {
    const node = this.#find(path, true);
    if (typeof node === 'number') return node;
    return node.kind === 'directory' ? Object.keys(node.entries()).sort() : -errno.ENOTDIR;
  }

  readFile(path: string): string | number {
    const node = this.#find(path, true);
    if (typeof node === 'number') return node;
    if (node.kind !== 'file') return -errno.EISDIR;
    return node.read ? node.read() : -errno.EACCES;
  }

  writeFile(path: string, value: string): number {
    const node = this.#find(path, true);
    if (typeof node === 'number') return node;
    if (node.kind !== 'file') return -errno.EISDIR;
    return node.write ? node.write(value) : -errno.EACCES;
  }

  readlink(path: string): string | number {
    const node = this.#find(path, false);
    if (typeof node === 'number') return node;
    return node.kind === 'link' ? node.target : -errno.EINVAL;
  }

  /** The path without links, '.' and '..', and what is there. */
  resolve(path: string): { path: string; node: Directory | TextFile } | number {
    const names: string[] = [];
    const node = this.#find(path, true, names);
    if (typeof node === 'number') return node;
    return node.kind === 'link' ? -errno.ELOOP : { path: `/${names.join('/')}`, node };
  }

  /** Walks an absolute path; a link at its end is followed only if `follow`. Its true names go into `names`. */
  #find(path: string, follow: boolean, names: string[] = []): Node | number {
    if (!path.startsWith('/')) return -errno.ENOENT;
    const parts = namesOf(path);
    const trail: Directory[] = [this.root];
    let links = 0;
    while (parts.length > 0) {
      const part = parts.shift() as string;
      if (part === '..') {
        if (trail.length > 1) trail.pop();
        names.pop();
        continue;
      }
      const entries = trail[trail.length - 1].entries();
      const node = Object.hasOwn(entries, part) ? entries[part] : undefined;
      if (!node) return -errno.ENOENT;
      if (node.kind !== 'link') names.push(part);
      if (node.kind === 'directory') trail.push(node);
      else if (node.kind === 'file') return parts.length > 0 || path.endsWith('/') ? -errno.ENOTDIR : node;
      else {
        if (parts.length === 0 && !follow) return node;
        if (++links > MOST_LINKS) return -errno.ELOOP;
        if (node.target.startsWith('/')) {
          trail.splice(1);
          names.splice(0);
        }
        parts.unshift(...namesOf(node.target));
      }
    }
    return trail[trail.length - 1];
  }
}
