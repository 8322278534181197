// Node: workers, a child process, files through the thread pool, a server and fetch, inotify, WebAssembly.
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { watch } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

const answer = await new Promise((done, failed) => {
  new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true }).once('message', done).once('error', failed);
});
const child = execFileSync('echo', ['child']).toString().trim();
const dir = await mkdtemp(join(tmpdir(), 'peer-'));
const seen = new Promise((done) => { const w = watch(dir, () => { w.close(); done('seen'); }); });
await writeFile(join(dir, 'file'), 'x');
const server = createServer((_, res) => res.end('hello')).listen(0, '127.0.0.1');
await new Promise((done) => server.once('listening', done));
const page = await (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
server.close();
const wasm = WebAssembly.validate(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
console.log('node works:', answer, child, await seen, page, wasm, networkInterfaces().lo[0].address);
process.exit(0);
