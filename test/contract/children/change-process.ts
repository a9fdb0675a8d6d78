// Another process, on Linux: takes over what the iommufd that it inherited as descriptor 3 has mapped, and says what
// came of it. Its argument is the user that it does so as.
import { openKernel } from '../../../lib/open-kernel';
import { IOMMU_IOAS_CHANGE_PROCESS } from '../../../lib/uapi';
import { countedPages } from '../counted-pages';

const INHERITED = 3;

const kernel = openKernel('linux');
const { request, struct } = IOMMU_IOAS_CHANGE_PROCESS;
// Only now: another user may not be able to read this program.
process.setuid!(Number(process.argv[2]));
const result = kernel.ioctl(INHERITED, request, struct.encode({ size: struct.size }));
process.stdout.write(JSON.stringify({ result, ...countedPages(kernel) }));
