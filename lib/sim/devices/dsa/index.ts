/** A data streaming accelerator. */
export { Dsa } from './device';
export { DSA_DEVICE_ID, DSA_VENDOR_ID } from './registers';
