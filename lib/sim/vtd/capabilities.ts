/**
 * Capability registers. Intel VT-d Architecture Specification rev. 4.1, sections 11.4.2 (CAP_REG) and 11.4.3 (ECAP_REG).
 *
 * A unit's variants are this data: every field is the register's own, with the value the register reports.
 */
import { CAP_REG_FIELDS, ECAP_REG_FIELDS } from '../../uapi/vtd-registers';
import { layout } from './layout';
import { FRCD_BYTES, REGISTER_BYTES, VER_6_0 } from './registers';

export const CAP_REG = layout(64, CAP_REG_FIELDS);
export const ECAP_REG = layout(64, ECAP_REG_FIELDS);

type CapName = keyof typeof CAP_REG.fields;
type EcapName = keyof typeof ECAP_REG.fields;

/** Every field of CAP_REG and ECAP_REG, VER_REG, and the platform's host address width (reported by the DMAR table). */
export type VtdCapabilities = Readonly<Record<CapName | EcapName, number>> & {
  /** VER_REG: major version 7:4, minor 3:0. Units before 6.0 have register-based invalidation. */
  readonly VER: number;
  /** Host address width in bits, 33 to 52. */
  readonly HAW: number;
};

/** A scalable-mode unit as in current servers, as far as this model goes. */
export const DEFAULT_CAPABILITIES: VtdCapabilities = {
  ...CAP_REG.decode([0, 0]),
  ...ECAP_REG.decode([0, 0]),
  ND: 6,
  SAGAW: 0b01110,
  MGAW: 56,
  ZLR: 1,
  FRO: 0x22,
  SSLPS: 0b0011,
  PSI: 1,
  NFR: 7,
  MAMV: 45,
  DWD: 1,
  DRD: 1,
  FS1GP: 1,
  FS5LP: 1,
  ESIRTPS: 1,
  ESRTPS: 1,
  C: 1,
  QI: 1,
  DT: 1,
  IR: 1,
  EIM: 1,
  PT: 1,
  SC: 1,
  IRO: 0xf,
  MHMV: 15,
  NEST: 1,
  PRS: 1,
  SRS: 1,
  NWFS: 1,
  EAFS: 1,
  PSS: 19,
  PASID: 1,
  PDS: 1,
  SMTS: 1,
  SSADS: 1,
  SSTS: 1,
  FSTS: 1,
  SMPWCS: 1,
  RPS: 1,
  VER: VER_6_0,
  HAW: 46,
};

/** The default with `changes`, each checked against its field's width. */
export function composeCapabilities(changes: Partial<VtdCapabilities> = {}): VtdCapabilities {
  const capabilities = { ...DEFAULT_CAPABILITIES, ...changes };
  encodeCap(capabilities);
  encodeEcap(capabilities);
  if (!(Number.isInteger(capabilities.HAW) && capabilities.HAW >= 33 && capabilities.HAW <= 52)) {
    throw new RangeError(`HAW must be 33 to 52, got ${capabilities.HAW}`);
  }
  if (!(Number.isInteger(capabilities.VER) && capabilities.VER >= 0 && capabilities.VER <= 0xff)) {
    throw new RangeError(`VER must be 0 to 255, got ${capabilities.VER}`);
  }
  const { FRO, NFR, IRO } = capabilities;
  if (FRO * 16 + (NFR + 1) * FRCD_BYTES > REGISTER_BYTES || IRO * 16 + 16 > REGISTER_BYTES) {
    throw new RangeError('FRO or IRO puts registers outside the register block');
  }
  return capabilities;
}

/** CAP_REG's value as [low, high] words. */
export const encodeCap = CAP_REG.encode;
/** ECAP_REG's value as [low, high] words. */
export const encodeEcap = ECAP_REG.encode;
export const decodeCap = CAP_REG.decode;
export const decodeEcap = ECAP_REG.decode;
