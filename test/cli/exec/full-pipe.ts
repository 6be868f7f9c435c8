// A program of its own, whose stdout somebody has set to non-blocking: writes as many bytes to it as its argument says,
// and then tells on stderr, as JSON, how often the pipe was full and how many milliseconds it took.
import * as net from 'node:net';
import { writeBytes } from '../../../src/cli/exec/output.ts';
import { countFull } from '../../fixtures/eagain.ts';

// That is how such a pipe comes about: a program that shares it sets the flag for all.
new net.Socket({ fd: 1, readable: false });
process.stderr.write('begun\n');
const full = countFull(() => writeBytes(1, Buffer.alloc(Number(process.argv[2]), 'x')));
process.stderr.write(`${JSON.stringify(full)}\n`);
process.exit(0);
