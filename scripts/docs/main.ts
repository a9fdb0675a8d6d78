// `npm run docs`: writes the part of docs/troubleshooting.md that is made from the errors' own table of causes.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withCauses } from './causes';

const PAGE = join(__dirname, '../../../docs/troubleshooting.md');
writeFileSync(PAGE, withCauses(readFileSync(PAGE, 'utf8')));
