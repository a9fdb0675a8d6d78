/** IOASID_ALLOC of the RFC: which kind of address space the options ask for. */
import { AddressSpace, type AddressSpaceOptions } from './address-space';
import type { Context } from './context';
import { FaultQueue } from './fault-queue';
import { NestedAddressSpace, type NestedAddressSpaceOptions } from './nested-address-space';
import { checkOptions } from './options';
import { UserAddressSpace, type UserAddressSpaceOptions } from './user-address-space';

/** Options of `iommu.createAddressSpace`. */
export type AnyAddressSpaceOptions =
  AddressSpaceOptions | NestedAddressSpaceOptions | UserAddressSpaceOptions;

/** Throws TypeError, IommuError. */
export function createAddressSpace(
  context: Context,
  options: AnyAddressSpaceOptions,
): AddressSpace | NestedAddressSpace | UserAddressSpace {
  checkOptions(options, 'createAddressSpace');
  if (options.faults !== undefined && !(options.faults instanceof FaultQueue))
    throw new TypeError('faults is what iommu.createFaultQueue() returned');
  if (options.faults && !context.queues.has(options.faults)) {
    options.faults.requireOpen({ request: 'IOMMU_HWPT_ALLOC' });
    throw new TypeError('the fault queue belongs to another Iommu');
  }
  if (isUserManaged(options)) {
    if ('enforceSnoop' in options && options.enforceSnoop !== undefined)
      throw new TypeError('a user-managed address space snoops as its parent does');
    return new UserAddressSpace(context, options);
  }
  if (options.pageTable !== undefined || options.pasidTable !== undefined)
    throw new TypeError('a kernel-managed address space has no table of the user’s own');
  return options.parent === undefined
    ? new AddressSpace(context, options)
    : new NestedAddressSpace(context, options);
}

function isUserManaged(options: AnyAddressSpaceOptions): options is UserAddressSpaceOptions {
  const hasTable = options.pageTable !== undefined || options.pasidTable !== undefined;
  const owner: unknown = options.owner ?? (hasTable ? 'user' : 'kernel');
  if (owner !== 'kernel' && owner !== 'user')
    throw new TypeError(`owner is 'kernel' or 'user', not ${String(owner)}`);
  if (owner === 'user' && options.parent === undefined)
    throw new TypeError('a user-managed address space needs a parent: the kernel trusts no table of a user');
  return owner === 'user';
}
