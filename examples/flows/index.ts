/** The flows of the RFC, section 4. */
import { flow41 } from './4-1';
import { flow42 } from './4-2';
import { flow43 } from './4-3';
import { flow44 } from './4-4';
import { flow45 } from './4-5';
import { flow46 } from './4-6';
import type { Flow } from './stage';

export const FLOWS: readonly Flow[] = [flow41, flow42, flow43, flow44, flow45, flow46];
