/** The commands `iommufd bind` and `iommufd unbind`. */
import { refusal } from '../../errors';
import { EXIT, parseCommand, printJson, reportRefusals, type Output, type Run } from '../command';
import { openSystem } from '../system';
import { bind, unbind, type Moved } from './bind';
import { RECORDS, Records } from './records';

const bindUsage = `iommufd bind [--json] [--force] [--group] DEVICE

Gives a PCI device, such as 0000:00:04.0 or 00:04.0, to vfio-pci, so that programs can have it; it takes root. Which
driver the device had is remembered in ${RECORDS} until the next boot: \`iommufd unbind\` gives the device back. Where a
step fails, the device goes back at once.

  --force  though it is in use: a file system on it is mounted, the default route goes through it, …
  --group  with all devices of its IOMMU group that have drivers of the kernel's own, for Linux gives away the group
           as a whole
  --json   { "moved": [{ "bdf", "from", "to", "path" }] }: drivers, null for none, and the VFIO device file; the list is
           empty if the device was vfio-pci's already

Exit status: 0 it is vfio-pci's, 1 it cannot be, 2 bad arguments, 3 it is in use, or another device of its group is, or
another bind or unbind does not end.
`;

const unbindUsage = `iommufd unbind [--json] [--force] [--group] DEVICE

Takes a PCI device from vfio-pci and gives it back to the driver that it had before \`iommufd bind\`, or, where nothing is
remembered of it, to the one that Linux chooses; it takes root.

  --force  though a program has it open: Linux waits until the program closes it
  --group  with the devices of its IOMMU group that \`iommufd bind\` took
  --json   { "moved": [{ "bdf", "from", "to", "path" }] }: drivers, null for none; path is null

Exit status: 0 it has its driver back, 1 it has not, 2 bad arguments, 3 a program has it open, or another bind or unbind
does not end.
`;

const options = {
  json: { type: 'boolean' },
  force: { type: 'boolean' },
  group: { type: 'boolean' },
} as const;

export const runBind = mover(bindUsage, bind);
export const runUnbind = mover(unbindUsage, unbind);

function mover(usage: string, move: typeof bind): Run {
  return (args: string[], output: Output): number => {
    const parsed = parseCommand({ usage, options, words: [1, 1] }, args, output);
    if (typeof parsed === 'number') return parsed;
    const { json = false, force = false, group = false } = parsed.values;
    return reportRefusals(json, output, () => {
      const system = openSystem();
      if (system.simulated) throw simulated();
      const moved = move(system, new Records(), parsed.positionals[0], { force, group });
      if (json) printJson(output, { moved });
      else output.out(moved.length === 0 ? "vfio-pci's already\n" : moved.map(line).join(''));
      return EXIT.done;
    });
  };
}

function line({ bdf, from, to, path }: Moved): string {
  return `${bdf}: ${from ?? 'no driver'} -> ${to ?? 'no driver'}${path === null ? '' : `, ${path}`}\n`;
}

/** The simulated machine ends with the command. */
function simulated(): Error {
  return refusal(
    'EOPNOTSUPP',
    "the simulated machine lives as long as one program, and its devices are VFIO's already",
    {
      syscall: 'write',
      hint: 'leave IOMMUFD_BACKEND out for the devices of this machine',
    },
  );
}
