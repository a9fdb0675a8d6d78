/** Get and Set Features. NVM Express 1.4, 5.21.1. */
import { WARNING_TEMPERATURE } from './identify';
import { ensure, STATUS } from './status';

export const FEATURE = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENTS: 0x0b,
} as const;

const DEFAULTS: Readonly<Record<number, number>> = {
  [FEATURE.ARBITRATION]: 7, // no limit of a burst
  [FEATURE.POWER_MANAGEMENT]: 0,
  [FEATURE.TEMPERATURE_THRESHOLD]: WARNING_TEMPERATURE,
  [FEATURE.ERROR_RECOVERY]: 0,
  [FEATURE.WRITE_CACHE]: 1,
  [FEATURE.INTERRUPT_COALESCING]: 0,
  [FEATURE.WRITE_ATOMICITY]: 0,
  [FEATURE.ASYNC_EVENTS]: 0,
};

/** Bits that each feature has; others are reserved. */
const MASKS: Readonly<Record<number, number>> = {
  [FEATURE.ARBITRATION]: 0xffff_ff07,
  [FEATURE.POWER_MANAGEMENT]: 0,
  [FEATURE.TEMPERATURE_THRESHOLD]: 0x003f_ffff,
  // TLER. DULBE, bit 16, is for namespaces that report unwritten blocks (NSFEAT bit 2): there are none (5.21.1.5).
  [FEATURE.ERROR_RECOVERY]: 0xffff,
  [FEATURE.WRITE_CACHE]: 1,
  [FEATURE.INTERRUPT_COALESCING]: 0xffff,
  [FEATURE.WRITE_ATOMICITY]: 1,
  [FEATURE.ASYNC_EVENTS]: 0xffff,
};

/** Of the temperature threshold: THSEL, which threshold, over (0) or under (1); and of which sensor, 0 for the composite. */
const THRESHOLD_SELECT = 20;
const THRESHOLD_SENSOR = 16;
/** TMPSEL of Set Features: all sensors that there are, which is the composite one (5.21.1.4). */
const ALL_SENSORS = 15;
const COALESCING_DISABLED = 1 << 16;

export class Features {
  readonly #values = new Map<number, number>();
  /** Interrupt vectors whose coalescing is disabled (figure 286). */
  readonly #uncoalesced = new Set<number>();
  #underTemperature = 0;

  constructor(
    readonly ioQueues: number,
    readonly vectors: number,
  ) {}

  /** Every feature's default: nothing is saved over a controller reset. */
  reset(): void {
    this.#values.clear();
    this.#uncoalesced.clear();
    this.#underTemperature = 0;
  }

  value(feature: number): number {
    return this.#values.get(feature) ?? DEFAULTS[feature];
  }

  coalesces(vector: number): boolean {
    return !this.#uncoalesced.has(vector);
  }

  /** Writes are in the cache until they are flushed (5.21.1.6); otherwise they are on the medium when they complete. */
  get cachesWrites(): boolean {
    return this.value(FEATURE.WRITE_CACHE) === 1;
  }

  /** Kelvin: events are due from `over` on, and down from `under`. */
  get temperatures(): { over: number; under: number } {
    return { over: this.value(FEATURE.TEMPERATURE_THRESHOLD) & 0xffff, under: this.#underTemperature };
  }

  /** Dword 0 of the completion (5.9, 5.21). `details`: command dword 11. Throws CommandError. */
  get(feature: number, details: number): number {
    if (feature === FEATURE.NUMBER_OF_QUEUES) return this.#queues();
    if (feature === FEATURE.INTERRUPT_VECTOR) {
      const vector = details & 0xffff;
      ensure(vector < this.vectors, STATUS.INVALID_FIELD);
      return vector | (this.coalesces(vector) ? 0 : COALESCING_DISABLED);
    }
    ensure(feature in DEFAULTS, STATUS.INVALID_FIELD);
    if (feature !== FEATURE.TEMPERATURE_THRESHOLD) return this.value(feature);
    return select(details, [0]) === 1 ? this.#underTemperature : this.temperatures.over;
  }

  /** Likewise. `queuesExist`: I/O queues have been created since the controller reset. */
  set(feature: number, value: number, queuesExist: boolean): number {
    if (feature === FEATURE.NUMBER_OF_QUEUES) {
      ensure(!queuesExist, STATUS.COMMAND_SEQUENCE_ERROR);
      // 0's based values, of which the largest is reserved (5.21.1.7).
      ensure((value & 0xffff) !== 0xffff && value >>> 16 !== 0xffff, STATUS.INVALID_FIELD);
      return this.#queues();
    }
    if (feature === FEATURE.INTERRUPT_VECTOR) {
      const vector = value & 0xffff;
      ensure(vector < this.vectors, STATUS.INVALID_FIELD);
      if ((value & COALESCING_DISABLED) !== 0) this.#uncoalesced.add(vector);
      else this.#uncoalesced.delete(vector);
      return 0;
    }
    ensure(feature in DEFAULTS, STATUS.INVALID_FIELD);
    ensure((value & ~MASKS[feature]) === 0, STATUS.INVALID_FIELD);
    if (feature === FEATURE.TEMPERATURE_THRESHOLD && select(value, [0, ALL_SENSORS]) === 1)
      this.#underTemperature = value & 0xffff;
    else this.#values.set(feature, value);
    return 0;
  }

  /** As many as there are, whatever was asked for: software takes the lesser of the two. */
  #queues(): number {
    return (((this.ioQueues - 1) << 16) | (this.ioQueues - 1)) >>> 0;
  }
}

/** Which temperature threshold, over or under: of the composite temperature only, there is no sensor. */
function select(details: number, sensors: readonly number[]): number {
  ensure(sensors.includes((details >>> THRESHOLD_SENSOR) & 15), STATUS.INVALID_FIELD);
  const selected = (details >>> THRESHOLD_SELECT) & 3;
  ensure(selected < 2, STATUS.INVALID_FIELD);
  return selected;
}
