/** The types of mediated devices that the driver of channel engines hands out: RFC, section 1.4. */

export interface MdevType {
  /** Behind the driver's name in mdev_supported_types. */
  readonly sysfsName: string;
  readonly prettyName: string;
  /** Its DMA is the device's, kept apart by the IOMMU (by a default PASID); else the driver's, through the processor. */
  readonly isolated: boolean;
  /** It has address spaces of its own besides: by vPASIDs. */
  readonly pasids: boolean;
  /** The processor puts vPASIDs into its commands (ENQCMD), and must translate them. */
  readonly enqcmd: boolean;
}

/** Of `type`, its number in the RFC's table. */
export const MDEV_TYPES: readonly MdevType[] = [
  // 2
  {
    ...{ sysfsName: 'software', prettyName: 'Channel in software' },
    ...{ isolated: false, pasids: false, enqcmd: false },
  },
  // 3
  {
    ...{ sysfsName: 'channel', prettyName: 'Channel with one address space' },
    ...{ isolated: true, pasids: false, enqcmd: false },
  },
  // 6
  {
    ...{ sysfsName: 'pasid', prettyName: 'Channel with PASIDs' },
    ...{ isolated: true, pasids: true, enqcmd: false },
  },
  // 8
  {
    ...{ sysfsName: 'enqcmd', prettyName: 'Channel with PASIDs and a portal for ENQCMD' },
    ...{ isolated: true, pasids: true, enqcmd: true },
  },
];
