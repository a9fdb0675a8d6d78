/** The kernel's user-space API as data and pure codecs: `iommufd/uapi`. */
export * from './errno';
export * from './iommufd';
export * from './iommufd-ioctls';
export * from './iommufd-test';
export * from './layout';
export * from './since';
export * from './vfio';
export * from './vtd-registers';
