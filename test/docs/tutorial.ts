/**
 * Follows a page as its reader would: writes its files, runs its commands, and compares what they print. Instead of npm's
 * registry there are the packages that this one is developed with, and nothing is compiled: the addon is not there.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Block, blocksOf, ROOT } from './blocks';

/** What the package depends on, and the dependencies of that. */
const DEPENDENCIES = ['bindings', 'file-uri-to-path', 'node-addon-api'];
/** Commands that change the machine, take minutes, or start a virtual machine. */
const MACHINE =
  /^(sudo |apt-get |cp .*udev|echo .*sys)|scripts\/vm\/kernel|iommufd (build|vm |bind |unbind )/;

export const needsMachine = (command: string): boolean => MACHINE.test(command.trim());

export class Tutorial {
  /** Where the reader begins; the repository's copy is in there, as `iommufd`. */
  readonly home = mkdtempSync(join(tmpdir(), 'iommufd-tutorial-'));
  /** Where the reader is now. */
  folder = this.home;
  /** Commands that were left out. */
  readonly leftOut: string[] = [];
  readonly #tarballs: readonly string[];
  /** Commands that have what npm would install for development. */
  readonly #links: string[] = [];

  constructor() {
    symlinkSync(ROOT, join(this.home, 'iommufd'));
    const packed = join(this.home, 'packed');
    mkdirSync(packed);
    this.#tarballs = DEPENDENCIES.map((name) => {
      const folder = join(ROOT, 'node_modules', name);
      const pack = ['pack', '--ignore-scripts', '--silent', '--pack-destination', packed];
      return join(packed, execFileSync('npm', pack, { cwd: folder, encoding: 'utf8' }).trim());
    });
  }

  follow(page: string): void {
    for (const block of blocksOf(page)) {
      if (block.file !== undefined) this.#write(block.file, block.text);
      else if (block.language === 'sh') this.#run(block);
    }
  }

  /** Runs a command where the reader is; on the simulated machine, unless it may choose. */
  run(
    command: string,
    backend: 'simulated' | 'any' = 'simulated',
  ): { status: number | null; output: string } {
    const place = join(this.home, 'place');
    const { IOMMUFD_BACKEND: _, ...env } = process.env;
    const { status, stdout } = spawnSync('sh', ['-ec', `exec 2>&1\n${command}\npwd >'${place}'`], {
      cwd: this.folder,
      encoding: 'utf8',
      env: backend === 'any' ? env : { ...env, IOMMUFD_BACKEND: backend },
    });
    if (status === 0) this.folder = readFileSync(place, 'utf8').trim();
    return { status, output: stdout };
  }

  /** Runs the steps of a GitHub workflow that are commands. */
  runWorkflow(file: string): string[] {
    const text = readFileSync(join(this.folder, file), 'utf8');
    const steps = [...text.matchAll(/^ +- run: (.*)$/gm)].map(([, command]) => command);
    for (const step of steps) this.#run({ name: `${file}, ${step}`, text: step, prints: undefined });
    return steps;
  }

  remove(): void {
    rmSync(this.home, { recursive: true });
  }

  #write(file: string, text: string): void {
    const path = join(this.folder, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }

  #run({ name, text, prints }: Pick<Block, 'name' | 'text' | 'prints'>): void {
    const commands = text.trim().split('\n');
    const possible = commands.filter((command) => !needsMachine(command));
    this.leftOut.push(...commands.filter(needsMachine));
    if (possible.length === 0) return;
    const { status, output } = this.run(possible.map((command) => this.#offline(command)).join('\n'));
    if (status !== 0) throw new Error(`${name} ended with status ${status}:\n${text}\n${output}`);
    const missing = missingLine(prints ?? '', output);
    if (missing !== undefined) throw new Error(`${name} does not print '${missing}', but:\n${output}`);
  }

  /** The same without npm's registry, and without compiling while other tests use what is compiled. */
  #offline(command: string): string {
    if (command === 'cd iommufd && npm install && cd ..') return ':';
    if (command === 'npm ci') return [`${command} --offline --ignore-scripts`, ...this.#links].join('\n');
    if (command.startsWith('npm pack ')) return `${command} --ignore-scripts`;
    const [, what] = /^npm install (.*)$/.exec(command) ?? [];
    if (what === undefined) return command;
    const [, names] = /^--save-dev (.*)$/.exec(what) ?? [];
    if (names !== undefined) {
      this.#links.push(...names.split(' ').map(linkDevelopment));
      return this.#links.join('\n');
    }
    return `npm install --offline --ignore-scripts ${what} ${this.#tarballs.join(' ')}`;
  }
}

/** Has a package that this one is developed with where npm would put it, and its command. */
function linkDevelopment(name: string): string {
  const from = join(ROOT, 'node_modules', name);
  const { bin = {} } = JSON.parse(readFileSync(join(from, 'package.json'), 'utf8')) as {
    bin?: Readonly<Record<string, string>> | string;
  };
  const links = (typeof bin === 'string' ? [name] : Object.keys(bin)).map(
    (command) => `ln -s '${join(ROOT, 'node_modules/.bin', command)}' node_modules/.bin/${command}`,
  );
  return [`mkdir -p node_modules/${dirname(name)}`, `ln -s '${from}' node_modules/${name}`, ...links].join(
    '\n',
  );
}

/** The first line that should be in the output, after those before it, and is not. */
export function missingLine(expected: string, output: string): string | undefined {
  let from = 0;
  for (const line of expected.split('\n').map((one) => one.trim())) {
    const at = output.indexOf(line, from);
    if (at < 0) return line;
    from = at + line.length;
  }
  return undefined;
}
