import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(__dirname, '../..');

/** Runs a program in the package's folder, where it knows itself by name; what it printed, from JSON. */
function run(kind: 'module' | 'commonjs', program: string): unknown {
  return JSON.parse(
    execFileSync(process.execPath, [`--input-type=${kind}`, '--eval', program], {
      cwd: root,
      encoding: 'utf8',
    }),
  );
}

const USE = `
const iommu = Iommu.open({ backend: 'simulated' });
const space = iommu.createAddressSpace();
const name = (() => { try { space.map({}); } catch (error) { return error.name; } })();
console.log(JSON.stringify([iommu.backend, space.ioasid, name, typeof IommuError, typeof openKernel, typeof Machine, IOMMU_IOAS_MAP.name]));
iommu.close();`;
const EXPECTED = ['simulated', 1, 'TypeError', 'function', 'function', 'function', 'IOMMU_IOAS_MAP'];

describe('the package', () => {
  test('is imported by name from an ES module', () => {
    const imports = `
      import { Iommu, IommuError } from 'iommufd';
      import { openKernel } from 'iommufd/kernel';
      import { Machine } from 'iommufd/sim';
      import { IOMMU_IOAS_MAP } from 'iommufd/uapi';`;
    expect(run('module', imports + USE)).toEqual(EXPECTED);
  });

  test('is required from CommonJS', () => {
    const requires = `
      const { Iommu, IommuError } = require('iommufd');
      const { openKernel } = require('iommufd/kernel');
      const { Machine } = require('iommufd/sim');
      const { IOMMU_IOAS_MAP } = require('iommufd/uapi');`;
    expect(run('commonjs', requires + USE)).toEqual(EXPECTED);
  });

  test('loads neither the addon nor the simulation until one is wanted', () => {
    const program = `
      require('iommufd');
      require('iommufd/kernel');
      const loaded = Object.keys(require.cache);
      console.log(JSON.stringify(loaded.filter((path) => /\\.node$|lib.(linux|sim)|bindings/.test(path))));`;
    expect(run('commonjs', program)).toEqual([]);
  });

  test('a program that opens the simulated backend and forgets to close it still ends', () => {
    const program = `
      const iommu = require('iommufd').Iommu.open({ backend: 'simulated' });
      const device = iommu.bind('0000:00:04.0', { cookie: 1 });
      device.attach(iommu.createAddressSpace());
      console.log(JSON.stringify('open'));`;
    expect(run('commonjs', program)).toBe('open');
  });

  test('has few dependencies', () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>;
    };
    expect(Object.keys(dependencies).sort()).toEqual(['bindings', 'node-addon-api']);
  });
});
