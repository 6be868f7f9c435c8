// Ends processes and removes folders once the test process is gone, however it went: its standard input then ends.
// Each line says what to see to: "+PID", "-PID" when it has ended by itself, "/FOLDER".
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
    // It has ended already.
  }
}
for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
