/** The kernel's user-space API as data and pure codecs: `iommufd/uapi`. */
export * from './errno';
export * from './iommufd';
export * from './iommufd-ioctls';
export * from './iommufd-test';
export * from './layout';
export * from './proposal/kvm';
export * from './proposal/pasid';
export * from './since';
export * from './vfio';
export * from './vfio-capabilities';
export * from './vfio-features';
export * from './vfio-type1';
export * from './vtd-registers';
