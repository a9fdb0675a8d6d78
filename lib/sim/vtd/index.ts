/** The VT-d hardware model: the unit, and the codecs of everything software writes for it. */
export * from './capabilities';
export * from './context-table';
export * from './fault-reasons';
export { AT_TRANSLATED, AT_TRANSLATION, AT_UNTRANSLATED } from './fault-recording';
export * from './first-stage';
export * from './invalidation-descriptors';
export * from './layout';
export * from './legacy-context-table';
export * from './page-request-queue';
export * from './pasid-table';
export type { InterruptSink } from './register-file';
export * from './registers';
export * from './root-table';
export * from './second-stage';
export { describeStaleUse } from './strict';
export type { StaleUse } from './strict';
export * from './unit';
export { isInterruptAddress, PAGE_SHIFT_1G, PAGE_SHIFT_2M, PAGE_SHIFT_4K, Walk } from './walk';
