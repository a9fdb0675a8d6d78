/** The data sheet of the checksum device (PCI ID 1234:c5c5): BAR 0. The driver and the simulated device share it. */
import { defineRegisters } from 'iommufd';

export const VENDOR_ID = 0x1234;
export const DEVICE_ID = 0xc5c5;

export const CHECKSUM = defineRegisters({
  VERSION: { offset: 0x00, width: 32, access: 'ro', reset: 1 },
  /** Writing START while the device is not BUSY begins; with PASID_ENABLE, requests carry PASID. */
  CONTROL: { offset: 0x04, width: 32, fields: { START: 0, PASID_ENABLE: 1, PASID: [31, 12] } },
  STATUS: { offset: 0x08, width: 32, access: 'ro', fields: { BUSY: 0 } },
  /** Why the last MSI-X message, vector 0, was sent. Writing ones clears. */
  CAUSE: { offset: 0x0c, width: 32, access: 'w1c', fields: { DONE: 0, FAILED: 1 } },
  SOURCE: { offset: 0x10, width: 64 },
  /** Bytes. */
  LENGTH: { offset: 0x18, width: 32 },
  /** CRC-32 (ISO 3309) of the bytes, once DONE is set. */
  RESULT: { offset: 0x1c, width: 32, access: 'ro' },
  /** Where the access that FAILED began. */
  FAULT_ADDRESS: { offset: 0x20, width: 64, access: 'ro' },
});
