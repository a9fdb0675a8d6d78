/**
 * Offsets and bits of PCI configuration space. PCI Local Bus Specification 3.0, chapter 6; PCI Express Base
 * Specification 6.0, chapter 7 (header 7.5.1, power management 7.5.2, PCI Express 7.5.3, MSI 7.7.1, MSI-X 7.7.2,
 * ATS 10.5.1, page requests 10.5.2, PASID 7.8.9, ACS 7.7.11).
 */

/** Bytes of configuration space of a conventional function, and of one with a PCI Express capability. */
export const CONFIG_SPACE_SIZE = 256;
export const EXTENDED_CONFIG_SPACE_SIZE = 4096;

// Type 0 header (PCI 3.0, figure 6-1).
export const VENDOR_ID = 0x00;
export const DEVICE_ID = 0x02;
export const COMMAND = 0x04;
export const STATUS = 0x06;
export const REVISION_ID = 0x08;
/** Three bytes: programming interface, sub-class, base class. */
export const CLASS_CODE = 0x09;
export const CACHE_LINE_SIZE = 0x0c;
export const LATENCY_TIMER = 0x0d;
export const HEADER_TYPE = 0x0e;
export const BASE_ADDRESS_REGISTERS = 0x10;
export const SUBSYSTEM_VENDOR_ID = 0x2c;
export const SUBSYSTEM_ID = 0x2e;
export const CAPABILITIES_POINTER = 0x34;
export const INTERRUPT_LINE = 0x3c;
export const INTERRUPT_PIN = 0x3d;
/** Where the capabilities begin: the first byte after the header. */
export const HEADER_SIZE = 0x40;

/** Header type register: the device has several functions. */
export const HEADER_TYPE_MULTIFUNCTION = 1 << 7;
/** The layout of the header: of a function with nothing behind it, or of a bridge. */
export const HEADER_TYPE_LAYOUT = 0x7f;
export const HEADER_TYPE_NORMAL = 0;
export const HEADER_TYPE_BRIDGE = 1;

// Type 1 header (PCI-to-PCI Bridge Architecture Specification 1.2, 3.2.5). Its two BARs are where type 0 has them.
export const PRIMARY_BUS = 0x18;
export const SECONDARY_BUS = 0x19;
export const SUBORDINATE_BUS = 0x1a;
export const BRIDGE_BAR_COUNT = 2;

// Command register (PCI 3.0, 6.2.2).
export const COMMAND_IO_SPACE = 1 << 0;
export const COMMAND_MEMORY_SPACE = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
export const COMMAND_PARITY_ERROR_RESPONSE = 1 << 6;
export const COMMAND_SERR_ENABLE = 1 << 8;
export const COMMAND_INTERRUPT_DISABLE = 1 << 10;

// Status register (PCI 3.0, 6.2.3).
export const STATUS_INTERRUPT = 1 << 3;
export const STATUS_CAPABILITIES_LIST = 1 << 4;
/** The error bits, which software clears by writing ones: 15:11 and 8. */
export const STATUS_ERRORS = 0xf900;

// Base address registers (PCI 3.0, 6.2.5.1).
export const BAR_COUNT = 6;
export const BAR_TYPE_64BIT = 0x4;
export const BAR_PREFETCHABLE = 0x8;
export const BAR_FLAGS = 0xf;

// Capability IDs (PCI Code and ID Assignment Specification).
export const CAPABILITY_POWER_MANAGEMENT = 0x01;
export const CAPABILITY_MSI = 0x05;
export const CAPABILITY_EXPRESS = 0x10;
export const CAPABILITY_MSIX = 0x11;
export const EXTENDED_CAPABILITY_ACS = 0x0d;
export const EXTENDED_CAPABILITY_ATS = 0x0f;
export const EXTENDED_CAPABILITY_PRI = 0x13;
export const EXTENDED_CAPABILITY_PASID = 0x1b;
export const EXTENDED_CAPABILITIES = 0x100;

// Every offset below is relative to its capability.

// Power management (PCIe 6.0, 7.5.2).
export const PM_CAPABILITIES = 0x2;
export const PM_CONTROL_STATUS = 0x4;
export const PM_POWER_STATE = 0x3;
export const PM_NO_SOFT_RESET = 1 << 3;
export const POWER_STATE_D0 = 0;
export const POWER_STATE_D3HOT = 3;

// PCI Express (PCIe 6.0, 7.5.3).
export const EXPRESS_CAPABILITIES = 0x02;
export const EXPRESS_DEVICE_CAPABILITIES = 0x04;
export const EXPRESS_FUNCTION_LEVEL_RESET = 1 << 28;
export const EXPRESS_DEVICE_CONTROL = 0x08;
/** Enable No Snoop: 1 after reset, or hardwired to 0 in a function that never sets the attribute (7.5.3.4). */
export const EXPRESS_NO_SNOOP = 1 << 11;
export const EXPRESS_INITIATE_FLR = 1 << 15;
export const EXPRESS_DEVICE_STATUS = 0x0a;
export const EXPRESS_LINK_CAPABILITIES = 0x0c;
export const EXPRESS_LINK_STATUS = 0x12;
export const EXPRESS_SIZE = 0x3c;
/** Device/Port Type, in bits 7:4 of the capabilities register. */
export const EXPRESS_TYPE_ENDPOINT = 0;
export const EXPRESS_TYPE_ROOT_PORT = 4;
export const EXPRESS_TYPE_UPSTREAM_PORT = 5;
export const EXPRESS_TYPE_DOWNSTREAM_PORT = 6;
export const EXPRESS_TYPE_PCI_BRIDGE = 7;
export const EXPRESS_TYPE_ROOT_COMPLEX_ENDPOINT = 9;

// MSI (PCIe 6.0, 7.7.1).
export const MSI_CONTROL = 0x2;
export const MSI_CONTROL_ENABLE = 1 << 0;
export const MSI_CONTROL_64BIT = 1 << 7;
export const MSI_CONTROL_PER_VECTOR_MASKING = 1 << 8;
export const MSI_ADDRESS = 0x4;
export const MSI_UPPER_ADDRESS = 0x8;

// MSI-X (PCIe 6.0, 7.7.2).
export const MSIX_CONTROL = 0x2;
export const MSIX_CONTROL_FUNCTION_MASK = 1 << 14;
export const MSIX_CONTROL_ENABLE = 1 << 15;
export const MSIX_TABLE = 0x4;
export const MSIX_PBA = 0x8;
/** One table entry: address, upper address, data, vector control (bit 0: masked). */
export const MSIX_ENTRY_SIZE = 16;

// ATS (PCIe 6.0, 10.5.1).
export const ATS_CAPABILITY = 0x4;
export const ATS_PAGE_ALIGNED_REQUEST = 1 << 5;
export const ATS_GLOBAL_INVALIDATE = 1 << 6;
export const ATS_CONTROL = 0x6;
export const ATS_CONTROL_STU = 0x1f;
export const ATS_CONTROL_ENABLE = 1 << 15;

// Page Request Interface (PCIe 6.0, 10.5.2).
export const PRI_CONTROL = 0x4;
export const PRI_CONTROL_ENABLE = 1 << 0;
export const PRI_CONTROL_RESET = 1 << 1;
export const PRI_STATUS = 0x6;
export const PRI_STATUS_RESPONSE_FAILURE = 1 << 0;
export const PRI_STATUS_UNEXPECTED_GROUP = 1 << 1;
export const PRI_STATUS_STOPPED = 1 << 8;
export const PRI_STATUS_PASID_REQUIRED = 1 << 15;
export const PRI_CAPACITY = 0x8;
export const PRI_ALLOCATION = 0xc;

// PASID (PCIe 6.0, 7.8.9).
export const PASID_CAPABILITY = 0x4;
export const PASID_CONTROL = 0x6;
export const PASID_CONTROL_ENABLE = 1 << 0;
export const PASID_EXECUTE = 1 << 1;
export const PASID_PRIVILEGED = 1 << 2;

// Access Control Services (PCIe 6.0, 7.7.11): the same bits say what is there and what is on.
export const ACS_CAPABILITY = 0x4;
export const ACS_CONTROL = 0x6;
/** Source Validation: nobody below can use another's requester ID. */
export const ACS_SOURCE_VALIDATION = 1 << 0;
/** P2P Request Redirect: requests between peers go up first. */
export const ACS_REQUEST_REDIRECT = 1 << 2;
/** P2P Completion Redirect. */
export const ACS_COMPLETION_REDIRECT = 1 << 3;
/** Upstream Forwarding: requests that would turn back here go up too. */
export const ACS_UPSTREAM_FORWARDING = 1 << 4;
