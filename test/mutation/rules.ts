/** Rules of the proposal's items, each with a way to take it out of the compiled package. */
import { GROUP_RULES } from './group-rules';
import { MDEV_RULES } from './mdev-rules';
import type { Rule } from './mutant';

export const RULES: readonly Rule[] = [
  {
    name: 'a nested space follows what its parent maps later',
    item: 'IOASIDs: software nesting',
    file: 'nested-address-space.js',
    from: 'this.#add((0, nested_mapping_1.intersect)(mapping, source));\n    }\n    /** @internal The parent is about',
    to: '{}\n    }\n    /** @internal The parent is about',
    tests: ['nested-space', 'contract/nested-space'],
  },
  {
    name: 'a nested mapping has no rights that its parent’s has not',
    item: 'IOASIDs: software nesting',
    file: 'nested-mapping.js',
    from: 'const write = mapping.write && source.write;',
    to: 'const write = mapping.write;',
    tests: ['nested-space', 'contract/nested-space'],
  },
  {
    name: 'there is no nesting across /dev/iommu files',
    item: 'IOASIDs',
    file: 'nested-address-space.js',
    from: 'if (parent.context !== context)',
    to: 'if (false)',
    tests: ['nested-space', 'contract/nested-space'],
  },
  {
    name: 'a late answer never answers a later fault of the same kernel cookie',
    item: 'page faults',
    file: 'rings/groups.js',
    from: ' && this.#generations[cookie] === (generation | 0)',
    to: '',
    tests: ['fault-queue', 'fault-groups', 'contract/fault'],
  },
  {
    name: 'a cookie names one device',
    item: 'devices and cookies',
    file: 'context.js',
    from: 'if (device.cookie === wide)\n            throw',
    to: 'if (false)\n            throw',
    tests: ['contract/bind'],
  },
  {
    name: 'two devices never have one routing slot',
    item: 'the seed question',
    file: 'attach-data.js',
    from: 'if (!other || other.cookie === device.cookie)\n            return;',
    to: 'return;',
    tests: ['attach-data'],
  },
  {
    name: 'what a parent unmaps is out of reach for tables nested on it in hardware',
    item: 'isolation',
    file: 'sim/kernel/intel/domain.js',
    from: 'for (const child of this.children)\n            child.invalidateAll();',
    to: '',
    tests: ['isolation/isolation'],
  },
  {
    name: 'a slot that is moved is dropped from every cache',
    item: 'isolation',
    file: 'sim/kernel/intel/attachments.js',
    from: 'this.#flush(state, pasid, old.domain);',
    to: '',
    tests: ['isolation/isolation'],
  },
  {
    name: 'devices forget what is unmapped',
    item: 'isolation',
    file: 'sim/kernel/intel/domain.js',
    from: '...this.deviceTlbDescriptors(block));\n        for (const child',
    to: ');\n        for (const child',
    tests: ['isolation/isolation'],
  },
  ...GROUP_RULES,
  ...MDEV_RULES,
];
