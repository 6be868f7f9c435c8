// A program of its own, whose stdout somebody has set to non-blocking: writes as many bytes to it as its argument says,
// and then tells on stderr how many milliseconds of CPU time it took.
import * as net from 'node:net';
import { writeBytes } from '../../src/cli/exec-output.ts';

// That is how such a pipe comes about: whoever shares it sets the flag for all.
new net.Socket({ fd: 1, readable: false });
const before = process.cpuUsage();
process.stderr.write('begun\n');
writeBytes(1, Buffer.alloc(Number(process.argv[2]), 'x'));
const { user, system } = process.cpuUsage(before);
process.stderr.write(`${(user + system) / 1000}\n`);
process.exit(0);
