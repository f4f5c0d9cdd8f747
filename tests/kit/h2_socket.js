// A WebSocket over HTTP/2 (RFC 8441) by node's http2 client, with its frames made here.
// Usage: node h2_socket.js URL PATH [CERT KEY], orders as JSON lines on stdin, what comes as JSON lines on stdout.
const http2 = require('http2'), crypto = require('crypto'), fs = require('fs'), readline = require('readline');
const [url, path, cert, key] = process.argv.slice(2);
const say = said => process.stdout.write(JSON.stringify(said) + '\n');
const options = cert ? {cert: fs.readFileSync(cert), key: fs.readFileSync(key), rejectUnauthorized: false} : {};
const session = http2.connect(url, options);
session.on('error', error => say({error: String(error)}));
session.on('goaway', code => say({goaway: code}));
session.on('close', () => { say({session: 'closed'}); process.exit(0); });

const frame = (opcode, payload, fin = true) => {
  const mask = crypto.randomBytes(4), size = payload.length;
  const head = size < 126 ? Buffer.from([0, 0x80 | size])
    : size < 65536 ? Buffer.from([0, 0xfe, size >> 8, size & 255])
    : Buffer.concat([Buffer.from([0, 0xff, 0, 0, 0, 0]), Buffer.from(new Uint32Array([size]).buffer).swap32()]);
  head[0] = (fin ? 0x80 : 0) | opcode;
  const masked = Buffer.from(payload);
  for (let i = 0; i < size; i++) masked[i] ^= mask[i & 3];
  return Buffer.concat([head, mask, masked]);
};

session.once('remoteSettings', settings => {
  say({connect: settings.enableConnectProtocol});
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': cert ? 'https' : 'http', ':path': path,
    ':authority': 'app', 'sec-websocket-version': '13',
  }, {endStream: false});
  let buffer = Buffer.alloc(0);
  stream.on('response', head => say({status: head[':status'], upgrade: head.upgrade || null}));
  stream.on('data', data => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length >= 2) {
      let size = buffer[1] & 127, at = 2;
      if (size === 126) { if (buffer.length < 4) return; size = buffer.readUInt16BE(2); at = 4; }
      else if (size === 127) { if (buffer.length < 10) return; size = Number(buffer.readBigUInt64BE(2)); at = 10; }
      if (buffer.length < at + size) return;
      const payload = buffer.subarray(at, at + size), opcode = buffer[0] & 15;
      const said = {opcode, fin: buffer[0] >> 7, size};
      if (opcode === 8) Object.assign(said, {code: payload.readUInt16BE(0), reason: payload.subarray(2).toString()});
      else said.sha256 = crypto.createHash('sha256').update(payload).digest('hex');
      buffer = buffer.subarray(at + size);
      say(said);
    }
  });
  stream.on('end', () => say({stream: 'ended'}));
  stream.on('error', error => say({failed: String(error.code || error)}));
  stream.on('close', () => say({stream: 'closed', code: stream.rstCode}));
  readline.createInterface({input: process.stdin}).on('line', line => {
    const order = JSON.parse(line);
    if (order.opcode !== undefined) stream.write(frame(order.opcode, Buffer.from(order.payload, 'base64'), order.fin));
    else if (order.end) stream.end();
    else if (order.reset) stream.close(http2.constants.NGHTTP2_CANCEL);
    else session.close();
  });
});
