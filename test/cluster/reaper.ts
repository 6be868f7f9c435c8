// Kills processes and removes folders when the test process ends in any way, which closes this process's stdin. Input
// lines: "+PID", "-PID" if it has ended by itself, "/FOLDER".
import * as fs from 'node:fs';
import { createInterface } from 'node:readline';

const pids = new Set<number>();
const folders: string[] = [];
for await (const line of createInterface(process.stdin)) {
  if (line.startsWith('+')) pids.add(Number(line.slice(1)));
  else if (line.startsWith('-')) pids.delete(Number(line.slice(1)));
  else folders.push(line);
}
for (const pid of pids) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has already ended.
  }
}
for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
