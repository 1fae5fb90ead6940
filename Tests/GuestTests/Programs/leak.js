// Leaks buffers, whose memory is malloc'ed, from a function that is hot enough to be compiled.

const kept = [];

function leakBuffers(byteCount) {
  kept.push(Buffer.allocUnsafeSlow(byteCount));
}

for (let round = 0; round < 5000; round++) leakBuffers(7001);
console.log('leaked');
setTimeout(() => {}, 600000);
