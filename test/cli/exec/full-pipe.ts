// A separate program whose stdout is non-blocking: writes the number of bytes in its argument to it, and then prints to
// stderr as JSON how often the pipe was full and how many milliseconds it took.
import * as net from 'node:net';
import { writeBytes } from '../../../src/cli/exec/output.ts';
import { countFull } from '../../fixtures/eagain.ts';

// Pipes get this flag from a program that shares them, which sets it for all.
new net.Socket({ fd: 1, readable: false });
process.stderr.write('begun\n');
const full = countFull(() => writeBytes(1, Buffer.alloc(Number(process.argv[2]), 'x')));
process.stderr.write(`${JSON.stringify(full)}\n`);
process.exit(0);
