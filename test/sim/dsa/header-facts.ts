/**
 * What the simulated accelerator and its driver take from Linux's headers, by the names that C has for it: constants of
 * include/uapi/linux/idxd.h and drivers/dma/idxd/registers.h, and which bits a field has in its struct or union.
 */
import * as driverCompletion from '../../../examples/drivers/dsa/completion';
import * as driverDescriptor from '../../../examples/drivers/dsa/descriptor';
import * as driver from '../../../examples/drivers/dsa/registers';
import type { RegisterMap } from '../../../lib/register-map';
import * as descriptor from '../../../lib/sim/devices/dsa/descriptor';
import * as reg from '../../../lib/sim/devices/dsa/registers';

/** C expression, or 'type.field', to what we have: a number, or the bits of the field in the object, in hexadecimal. */
export type Facts = Record<string, string>;

const hex = (value: number | bigint) => BigInt(value).toString(16);
/** Names of C, and our constants under other names. */
function constants(
  prefix: string,
  ours: Readonly<Record<string, number>>,
  names: Record<string, string>,
): Facts {
  return Object.fromEntries(Object.entries(names).map(([name, c]) => [prefix + c, hex(ours[name])]));
}

const { OPCODE, FLAG, STATUS } = descriptor;

/** Of the uAPI header: opcodes, flags, status codes. */
const UAPI_CONSTANTS: Facts = {
  ...constants('DSA_OPCODE_', OPCODE, {
    ...{ NOOP: 'NOOP', BATCH: 'BATCH', DRAIN: 'DRAIN', MEMMOVE: 'MEMMOVE', FILL: 'MEMFILL' },
    ...{ COMPARE: 'COMPARE', COMPARE_PATTERN: 'COMPVAL', DUALCAST: 'DUALCAST' },
    ...{ CRC: 'CRCGEN', COPY_CRC: 'COPY_CRC' },
  }),
  ...constants('IDXD_OP_FLAG_', FLAG, {
    ...{ FENCE: 'FENCE', BLOCK_ON_FAULT: 'BOF', RECORD_ADDRESS_VALID: 'CRAV', REQUEST_RECORD: 'RCR' },
    ...{ REQUEST_INTERRUPT: 'RCI', CHECK_RESULT: 'CR', CACHE_CONTROL: 'CC', STRICT_ORDERING: 'STORD' },
    ...{
      ADDRESS_1_TC: 'ADDR1_TCS',
      ADDRESS_2_TC: 'ADDR2_TCS',
      ADDRESS_3_TC: 'ADDR3_TCS',
      RECORD_TC: 'CR_TCS',
    },
  }),
  ...constants('DSA_COMP_', STATUS, {
    ...{ NONE: 'NONE', SUCCESS: 'SUCCESS', FALSE_PREDICATE: 'SUCCESS_PRED', PAGE_FAULT: 'PAGE_FAULT_NOBOF' },
    ...{
      PAGE_FAULT_REFUSED: 'PAGE_FAULT_IR',
      BATCH_FAILED: 'BATCH_FAIL',
      BATCH_PAGE_FAULT: 'BATCH_PAGE_FAULT',
    },
    ...{ BAD_OPCODE: 'BAD_OPCODE', INVALID_FLAGS: 'INVALID_FLAGS', RESERVED: 'NOZERO_RESERVE' },
    ...{ TRANSFER_SIZE: 'XFER_ERANGE', DESCRIPTOR_COUNT: 'DESC_CNT_ERANGE', OVERLAP: 'OVERLAP_BUFFERS' },
    ...{
      DUALCAST_ALIGNMENT: 'DCAST_ERR',
      LIST_ALIGNMENT: 'DESCLIST_ALIGN',
      INTERRUPT_HANDLE: 'INT_HANDLE_INVAL',
    },
    ...{ RECORD_PAGE_FAULT: 'CRA_XLAT', RECORD_ALIGNMENT: 'CRA_ALIGN', ADDRESS_ALIGNMENT: 'ADDR_ALIGN' },
    ...{ PRIVILEGE: 'PRIV_BAD', HARDWARE: 'HW_ERR1', TRANSLATION: 'TRANSLATION_FAIL' },
  }),
  DSA_COMP_STATUS_WRITE: hex(descriptor.STATUS_WRITE),
  'sizeof(struct dsa_hw_desc)': hex(descriptor.DESCRIPTOR_BYTES),
  'sizeof(struct dsa_completion_record)': hex(descriptor.RECORD_BYTES),
};

/** Little-endian bytes as one number. */
function number(bytes: Uint8Array): bigint {
  return [...bytes].reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** The bits that `read` looks at: those that change what it says. */
function bitsRead(bytes: number, read: (object: Uint8Array) => unknown): string {
  const said = (object: Uint8Array) => String(read(object));
  const zero = said(new Uint8Array(bytes));
  let bits = 0n;
  for (let bit = 0; bit < 8 * bytes; bit++) {
    const object = new Uint8Array(bytes);
    object[bit >>> 3] = 1 << (bit & 7);
    if (said(object) !== zero) bits |= 1n << BigInt(bit);
  }
  return hex(bits);
}

const { decodeDescriptor, encodeRecord, submitterOf } = descriptor;
const ALL = 0xffff_ffff_ffff_ffffn;

/** Bits of a descriptor that the device takes for each field. */
const DESCRIPTOR: Facts = Object.fromEntries(
  Object.entries<(bytes: Uint8Array) => unknown>({
    pasid: (bytes) => submitterOf(decodeDescriptor(bytes)).pasid,
    priv: (bytes) => submitterOf(decodeDescriptor(bytes)).privileged,
    flags: (bytes) => decodeDescriptor(bytes).flags,
    opcode: (bytes) => decodeDescriptor(bytes).opcode,
    completion_addr: (bytes) => decodeDescriptor(bytes).record,
    src_addr: (bytes) => decodeDescriptor(bytes).source,
    pattern: (bytes) => decodeDescriptor(bytes).source,
    desc_list_addr: (bytes) => decodeDescriptor(bytes).source,
    dst_addr: (bytes) => decodeDescriptor(bytes).destination,
    src2_addr: (bytes) => decodeDescriptor(bytes).destination,
    comp_pattern: (bytes) => decodeDescriptor(bytes).destination,
    xfer_size: (bytes) => decodeDescriptor(bytes).size,
    desc_count: (bytes) => decodeDescriptor(bytes).size,
    int_handle: (bytes) => decodeDescriptor(bytes).interrupt,
    expected_res: (bytes) => descriptor.expectedResult(decodeDescriptor(bytes)),
    dest2: (bytes) => descriptor.secondDestination(decodeDescriptor(bytes)),
    crc_seed: (bytes) => descriptor.crcSeed(decodeDescriptor(bytes)).seed,
    seed_addr: (bytes) => descriptor.crcSeed(decodeDescriptor(bytes)).address,
  }).map(([field, read]) => [`struct dsa_hw_desc.${field}`, bitsRead(64, read)]),
);

const record = (outcome: Omit<descriptor.Outcome, 'status'>) =>
  hex(number(encodeRecord({ status: 0, ...outcome })));
/** Bits of a completion record that the device writes of each field. */
const RECORD: Facts = {
  'struct dsa_completion_record.status': hex(number(encodeRecord({ status: 0xff }))),
  'struct dsa_completion_record.result': record({ result: 0xff }),
  'struct dsa_completion_record.bytes_completed': record({ completed: 0xffff_ffff }),
  'struct dsa_completion_record.fault_addr': record({ faultAddress: ALL }),
  'struct dsa_completion_record.invalid_flags': record({ invalidFlags: 0xff_ffff }),
};

/** Of the uAPI header, what the device has. */
export const uapiFacts: Facts = { ...UAPI_CONSTANTS, ...DESCRIPTOR, ...RECORD };

// ---- Registers

/** Fields of registers: `base` is where the C object begins, `names` has 'REGISTER.FIELD' or a whole 'REGISTER'. */
function fields(map: RegisterMap, type: string, base: number, names: Record<string, string>): Facts {
  return Object.fromEntries(
    Object.entries(names).map(([name, c]) => {
      const [register, field] = name.split('.');
      const layout = map.layouts.get(register);
      const bits = field === undefined ? undefined : layout?.fields?.get(field);
      if (!layout || (field !== undefined && !bits)) throw new Error(`there is no ${name}`);
      const low = bits?.low ?? 0;
      const ones = (1n << BigInt(bits?.bits ?? 8 * layout.bytes)) - 1n;
      return [`${type}.${c}`, hex(ones << BigInt(8 * (layout.offset - base) + low))];
    }),
  );
}

function offsets(map: RegisterMap, names: Record<string, string>): Facts {
  return Object.fromEntries(
    Object.entries(names).map(([name, c]) => [`IDXD_${c}_OFFSET`, hex(map.layouts.get(name)?.offset ?? -1)]),
  );
}

const COMMAND_FIELDS = { 'CMD.OPERAND': 'operand', 'CMD.COMMAND': 'cmd', 'CMD.INTERRUPT': 'int_req' };
const STATUS_FIELDS = { 'GENSTS.STATE': 'state', 'GENSTS.RESET_TYPE': 'reset_type' };
const CONTROL_FIELDS = {
  'GENCTRL.ERROR_INTERRUPT': 'softerr_int_en',
  'GENCTRL.HALT_INTERRUPT': 'halt_int_en',
};
const ERROR_FIELDS = {
  ...{ 'SWERR.VALID': 'valid', 'SWERR.OVERFLOW': 'overflow', 'SWERR.WRITE': 'fault_rw' },
  ...{ 'SWERR.ERROR': 'error', 'SWERR.WQ': 'wq_idx', 'SWERR.OPERATION': 'operation' },
  SWERR_ADDRESS: 'fault_addr',
};
const QUEUE_FIELDS = {
  ...{ 'MODE.DEDICATED': 'mode', 'MODE.BLOCK_ON_FAULT': 'bof', 'MODE.PRIORITY': 'priority' },
  ...{ 'MODE.PASID': 'pasid', 'MODE.PASID_ENABLE': 'pasid_en' },
  ...{ 'LIMITS.MAX_TRANSFER': 'max_xfer_shift', 'LIMITS.MAX_BATCH': 'max_batch_shift' },
};
const PERMISSION_FIELDS = { 'PERMISSION.PASID_ENABLE': 'pasid_en', 'PERMISSION.PASID': 'pasid' };

/** Of registers.h, what the device has. */
export const registerFacts: Facts = {
  ...offsets(reg.DSA_REGISTERS, {
    ...{ VERSION: 'VER', GENCAP: 'GENCAP', WQCAP: 'WQCAP', GRPCAP: 'GRPCAP', ENGCAP: 'ENGCAP' },
    ...{ OPCAP: 'OPCAP', OFFSETS: 'TABLE', GENCFG: 'GENCFG', GENCTRL: 'GENCTRL', GENSTS: 'GENSTATS' },
    ...{ INTCAUSE: 'INTCAUSE', CMD: 'CMD', CMDSTS: 'CMDSTS', CMDCAP: 'CMDCAP', SWERR: 'SWERR' },
  }),
  PCI_DEVICE_ID_INTEL_DSA_SPR0: hex(reg.DSA_DEVICE_ID),
  DEVICE_VERSION_1: hex(reg.DSA_REGISTERS.definitions.VERSION.reset),
  IDXD_TABLE_MULT: hex(reg.TABLE_UNIT),
  GRPCFG_SIZE: hex(reg.GROUP_BYTES),
  '1 << IDXD_WQCFG_MIN': hex(reg.WORK_QUEUE_BYTES),
  ...fields(reg.DSA_REGISTERS, 'union genctrl_reg', 0x88, CONTROL_FIELDS),
  ...fields(reg.DSA_REGISTERS, 'union gensts_reg', 0x90, STATUS_FIELDS),
  ...fields(reg.DSA_REGISTERS, 'union idxd_command_reg', 0xa0, COMMAND_FIELDS),
  ...fields(reg.DSA_REGISTERS, 'union sw_err_reg', 0xc0, {
    ...ERROR_FIELDS,
    ...{ 'SWERR.DESCRIPTOR_VALID': 'desc_valid', 'SWERR.WQ_VALID': 'wq_idx_valid', 'SWERR.BATCH': 'batch' },
    ...{ 'SWERR.PRIVILEGED': 'priv', 'SWERR.PASID': 'pasid' },
    ...{ 'SWERR_MORE.BATCH_INDEX': 'batch_idx', 'SWERR_MORE.INVALID_FLAGS': 'invalid_flags' },
  }),
  ...fields(reg.GROUP_CONFIG, 'struct grpcfg', 0, { WQS: 'wqs[0]', ENGINES: 'engines', FLAGS: 'flags.bits' }),
  ...fields(reg.WORK_QUEUE_CONFIG, 'union wqcfg', 0, {
    ...QUEUE_FIELDS,
    ...{ 'SIZE.ENTRIES': 'wq_size', 'THRESHOLD.ENTRIES': 'wq_thresh', 'MODE.PRIVILEGED': 'priv' },
    ...{ 'MODE.ATS_DISABLE': 'wq_ats_disable', 'MODE.PRS_DISABLE': 'wq_prs_disable' },
    ...{ 'STATUS.OCCUPANCY': 'occupancy', 'STATUS.MODE_SUPPORT': 'mode_support', 'STATUS.STATE': 'wq_state' },
  }),
  ...fields(reg.VECTOR_PERMISSION, 'union msix_perm', 0, {
    ...PERMISSION_FIELDS,
    'PERMISSION.IGNORE': 'ignore',
  }),
  ...constants(
    'IDXD_CMD_',
    reg.COMMAND,
    Object.fromEntries(Object.keys(reg.COMMAND).map((name) => [name, name])),
  ),
  ...constants('IDXD_CMDSTS_', reg.COMMAND_ERROR, {
    ...{ SUCCESS: 'SUCCESS', INVALID_COMMAND: 'INVAL_CMD', INVALID_WQ: 'INVAL_WQIDX' },
    ...{ DEVICE_ENABLED: 'ERR_DEV_ENABLED', CONFIGURATION: 'ERR_CONFIG', BUS_MASTER: 'ERR_BUSMASTER_EN' },
    ...{ WQ_SIZES: 'ERR_WQ_SIZE_ERANGE', GROUP_WQ: 'ERR_GRP_CONFIG', GROUP_ENGINE: 'ERR_GRP_CONFIG2' },
    ...{ GROUP_HALF: 'ERR_GRP_CONFIG3', GROUP_UNKNOWN: 'ERR_GRP_CONFIG4' },
    ...{ DEVICE_NOT_ENABLED: 'ERR_DEV_NOTEN', WQ_ENABLED: 'ERR_WQ_ENABLED', WQ_SIZE: 'ERR_WQ_SIZE' },
    ...{ WQ_PRIORITY: 'ERR_WQ_PRIOR', WQ_MODE: 'ERR_WQ_MODE', BLOCK_ON_FAULT: 'ERR_BOF_EN' },
    ...{ PASID_ENABLE: 'ERR_PASID_EN', MAX_BATCH: 'ERR_MAX_BATCH_SIZE', MAX_TRANSFER: 'ERR_MAX_XFER_SIZE' },
    ...{ DISABLE_NOT_ENABLED: 'ERR_DIS_DEV_EN', WQ_DEVICE_NOT_ENABLED: 'ERR_DEV_NOT_EN' },
  }),
  ...constants('IDXD_INTC_', reg.CAUSE, { ERROR: 'ERR', COMMAND: 'CMD' }),
  ...constants('IDXD_DEVICE_STATE_', reg.STATE, {
    ...{ DISABLED: 'DISABLED', ENABLED: 'ENABLED', DRAIN: 'DRAIN', HALT: 'HALT' },
  }),
  IDXD_DEVICE_RESET_FLR: hex(reg.RESET_BY_FUNCTION),
};

// ---- The driver's own

const { operations } = driverDescriptor;
type Sketch = Partial<driverDescriptor.Operation & driverDescriptor.Submission>;

/** Bits that the driver writes when a field is all ones instead of zero. */
function bitsWritten(ones: Sketch): string {
  const zeros = { ...operations.crc(0n, 0), opcode: 0, record: 0n, vector: 0, block: false };
  const written = (what: Sketch) =>
    number(driverDescriptor.encode({ ...zeros, ...what }, { ...zeros, ...what }));
  const base = 'seed' in ones ? { opcode: driverDescriptor.OPCODE.CRC } : {};
  return hex(written({ ...base, ...ones }) ^ written(base));
}

/** Bits that the driver reads of a record that is there. */
function recordBits(field: 'result' | 'completed' | 'address'): string {
  return bitsRead(driverCompletion.RECORD_BYTES, (bytes) => {
    bytes[0] = driverDescriptor.STATUS.HARDWARE;
    return driverCompletion.decode(operations.drain(), bytes)?.[field];
  });
}

const DRIVER_LAYOUTS: Facts = {
  'struct dsa_hw_desc.opcode': bitsWritten({ opcode: 0xff }),
  'struct dsa_hw_desc.completion_addr': bitsWritten({ record: ALL }),
  'struct dsa_hw_desc.src_addr': bitsWritten({ source: ALL }),
  'struct dsa_hw_desc.dst_addr': bitsWritten({ destination: ALL }),
  'struct dsa_hw_desc.xfer_size': bitsWritten({ size: 0xffff_ffff }),
  'struct dsa_hw_desc.int_handle': bitsWritten({ vector: 0xffff }),
  'struct dsa_hw_desc.crc_seed': bitsWritten({ seed: 0xffff_ffff }),
  'struct dsa_completion_record.status': bitsRead(driverCompletion.RECORD_BYTES, (bytes) => {
    const completion = driverCompletion.decode(operations.drain(), bytes);
    return completion && [completion.status, completion.write];
  }),
  'struct dsa_completion_record.result': recordBits('result'),
  'struct dsa_completion_record.bytes_completed': recordBits('completed'),
  'struct dsa_completion_record.fault_addr': recordBits('address'),
};

/** Of both headers, what the driver has: it shares no declaration with the device. */
export const driverFacts: Facts = {
  ...DRIVER_LAYOUTS,
  ...offsets(driver.DSA, {
    ...{
      VERSION: 'VER',
      GENCAP: 'GENCAP',
      WQCAP: 'WQCAP',
      ENGCAP: 'ENGCAP',
      OPCAP: 'OPCAP',
      TABLES: 'TABLE',
    },
    ...{ GENCTRL: 'GENCTRL', GENSTS: 'GENSTATS', INTCAUSE: 'INTCAUSE', CMD: 'CMD', CMDSTS: 'CMDSTS' },
    SWERR: 'SWERR',
  }),
  ...fields(driver.DSA, 'union gen_cap_reg', 0x10, {
    ...{ 'GENCAP.BLOCK_ON_FAULT': 'block_on_fault', 'GENCAP.OVERLAP_COPY': 'overlap_copy' },
    ...{ 'GENCAP.MAX_TRANSFER': 'max_xfer_shift', 'GENCAP.MAX_BATCH': 'max_batch_shift' },
  }),
  ...fields(driver.DSA, 'union wq_cap_reg', 0x20, {
    ...{ 'WQCAP.TOTAL': 'total_wq_size', 'WQCAP.WQS': 'num_wqs', 'WQCAP.CONFIG_SIZE': 'wqcfg_size' },
  }),
  ...fields(driver.DSA, 'union engine_cap_reg', 0x38, { 'ENGCAP.ENGINES': 'num_engines' }),
  ...fields(driver.DSA, 'union offsets_reg', 0x60, {
    ...{ 'TABLES.GROUPS': 'grpcfg', 'TABLES.WQS': 'wqcfg', 'TABLES.VECTORS': 'msix_perm' },
  }),
  ...fields(driver.DSA, 'union genctrl_reg', 0x88, CONTROL_FIELDS),
  ...fields(driver.DSA, 'union gensts_reg', 0x90, STATUS_FIELDS),
  ...fields(driver.DSA, 'union idxd_command_reg', 0xa0, COMMAND_FIELDS),
  ...fields(driver.DSA, 'union sw_err_reg', 0xc0, ERROR_FIELDS),
  ...fields(driver.GROUP, 'struct grpcfg', 0, { WQS: 'wqs[0]', ENGINES: 'engines' }),
  ...fields(driver.WORK_QUEUE, 'union wqcfg', 0, QUEUE_FIELDS),
  ...fields(driver.VECTOR, 'union msix_perm', 0, PERMISSION_FIELDS),
  ...constants(
    'IDXD_CMD_',
    driver.COMMANDS,
    Object.fromEntries(Object.keys(driver.COMMANDS).map((n) => [n, n])),
  ),
  PCI_DEVICE_ID_INTEL_DSA_SPR0: hex(driver.DEVICE_ID),
  IDXD_TABLE_MULT: hex(driver.TABLE_UNIT),
  IDXD_DEVICE_STATE_ENABLED: hex(driver.ENABLED),
  ...constants('DSA_OPCODE_', driverDescriptor.OPCODE, {
    ...{ BATCH: 'BATCH', DRAIN: 'DRAIN', MOVE: 'MEMMOVE', FILL: 'MEMFILL', COMPARE: 'COMPARE' },
    ...{ COMPARE_PATTERN: 'COMPVAL', CRC: 'CRCGEN' },
  }),
  ...constants('IDXD_OP_FLAG_', driverDescriptor.FLAG, {
    ...{ BLOCK_ON_FAULT: 'BOF', RECORD_VALID: 'CRAV', REQUEST_RECORD: 'RCR', REQUEST_INTERRUPT: 'RCI' },
    CHECK_RESULT: 'CR',
  }),
  ...constants('DSA_COMP_', driverDescriptor.STATUS, {
    ...{ SUCCESS: 'SUCCESS', FALSE_PREDICATE: 'SUCCESS_PRED', PAGE_FAULT: 'PAGE_FAULT_NOBOF' },
    ...{ PAGE_FAULT_REFUSED: 'PAGE_FAULT_IR', BATCH_FAILED: 'BATCH_FAIL' },
    ...{ BATCH_PAGE_FAULT: 'BATCH_PAGE_FAULT' },
    ...{ INVALID_FLAGS: 'INVALID_FLAGS', HARDWARE: 'HW_ERR1', TRANSLATION: 'TRANSLATION_FAIL' },
  }),
};
