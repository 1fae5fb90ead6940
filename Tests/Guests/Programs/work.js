// SPDX-License-Identifier: Apache-2.0
// Workers, children, buffers and generated code: prints what they have computed.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execFileSync, fork } = require('child_process');
const crypto = require('crypto');
const zlib = require('zlib');

function work(seed) {
  const words = new Map();
  for (let i = 0; i < 30000; i++) {
    const key = `key ${(i * 7919 + seed) % 10007}`;
    words.set(key, (words.get(key) || '') + String.fromCharCode(97 + (i % 26)));
  }
  const text = JSON.stringify([...words].sort());
  const packed = zlib.gzipSync(Buffer.from(text));
  const again = zlib.gunzipSync(packed).toString();
  return crypto.createHash('sha256').update(again).digest('hex');
}

if (!isMainThread) {
  parentPort.postMessage(work(workerData));
} else if (process.argv[2] === 'child') {
  process.send(work(7), () => process.exit(5));
} else {
  (async () => {
    console.log('plain', work(0));
    const workers = [1, 2, 3, 4].map((n) => new Promise((resolve, reject) => {
      const worker = new Worker(__filename, { workerData: n });
      worker.on('message', resolve);
      worker.on('error', reject);
    }));
    for (const answer of await Promise.all(workers)) console.log('worker', answer);
    const child = fork(__filename, ['child']);
    const told = await new Promise((resolve) => child.on('message', resolve));
    const status = await new Promise((resolve) => child.on('exit', resolve));
    console.log('child', told, status);
    console.log('seq', execFileSync('seq', ['5']).toString().trim().split('\n').join(','));
    const key = await new Promise((resolve, reject) =>
      crypto.scrypt('secret', 'salt', 64, (error, key) => (error ? reject(error) : resolve(key))));
    console.log('scrypt', key.toString('hex'));
    for (let i = 0; i < 50; i++) Buffer.allocUnsafeSlow(1 << 20).fill(i);
    globalThis.gc();
    const packed = await new Promise((resolve, reject) =>
      zlib.brotliCompress(Buffer.alloc(1 << 18, 'abcdefg'), (error, b) => (error ? reject(error) : resolve(b))));
    console.log('brotli', crypto.createHash('sha256').update(packed).digest('hex'));
  })();
}
