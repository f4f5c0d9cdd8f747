'use strict';
// A gRPC server on @grpc/grpc-js: node server.js PORT.
const crypto = require('crypto');
const grpc = require('@grpc/grpc-js');
const { SERVICE, UNLIMITED } = require('./methods.js');

const seconds = () => Number(process.hrtime.bigint()) / 1e9;  // the machine's monotonic clock
const seen = {};

function begin(name, call, over) {
  const note = (seen[name] = { began: seconds() });
  const left = call.getDeadline();
  if (left !== Infinity) note.left = (new Date(left) - Date.now()) / 1000;
  call.on('cancelled', () => { note.ended = seconds(); over(); });
}

function own(call) {
  const front = new grpc.Metadata(), behind = new grpc.Metadata();
  for (const key of Object.keys(call.metadata.getMap())) {
    if (!(key.startsWith('x-') || key.endsWith('-bin')) || key.startsWith('x-forwarded')) continue;
    for (const value of call.metadata.get(key)) { front.add(key, value); behind.add('trailing-' + key, value); }
  }
  return [front, behind];
}

function error(wish) {
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from('00ff2064657461696c73', 'hex'));
  metadata.set('x-reason', 'told');
  return { code: wish.code, details: wish.details, metadata };
}

const methods = {
  Echo(call, done) {
    const [front, behind] = own(call);
    call.sendMetadata(front);
    done(null, call.request, behind);
  },
  Collect(call, done) {
    const digest = crypto.createHash('sha256');
    let count = 0, bytes = 0;
    call.on('data', (piece) => { digest.update(piece); count += 1; bytes += piece.length; });
    call.on('end', () => done(null, Buffer.from(`{"count": ${count}, "bytes": ${bytes}, "sha256": "${digest.digest('hex')}"}`)));
  },
  Spread(call) {
    const wish = JSON.parse(call.request);
    let number = 0, stopped = false;
    begin(wish.id || 'spread', call, () => { stopped = true; });
    const next = () => {
      while (!stopped) {
        if (number === wish.count) {
          if (wish.code) call.emit('error', error(wish)); else call.end();
          return;
        }
        const piece = Buffer.alloc(wish.size);
        piece.writeUInt32BE(number++);
        const room = call.write(piece);
        if (wish.pause) { setTimeout(next, wish.pause * 1000); return; }
        if (!room) { call.once('drain', next); return; }
      }
    };
    next();
  },
  Talk(call) {
    call.sendMetadata(own(call)[0]);
    call.on('data', (piece) => call.write(piece));
    call.on('end', () => call.end());
  },
  Fail(call, done) { done(error(JSON.parse(call.request))); },
  Wait(call) { begin(call.request.toString(), call, () => {}); },
  Listen(call) {
    call.once('data', (piece) => { begin(piece.toString(), call, () => {}); call.write(Buffer.from('listening')); });
    call.on('error', () => {});
  },
  Seen(call, done) { done(null, Buffer.from(JSON.stringify(seen))); },
};

const server = new grpc.Server(UNLIMITED);
server.addService(SERVICE, methods);
server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (problem) => {
  if (problem) throw problem;
});
