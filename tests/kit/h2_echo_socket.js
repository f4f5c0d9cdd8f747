// An application that speaks HTTP/2 only, and takes WebSockets in it (RFC 8441): it echoes their bytes as they are.
// Usage: node h2_echo_socket.js PORT; says "ready" once it listens.
const http2 = require('http2');
const server = http2.createServer({settings: {enableConnectProtocol: true}});
server.on('stream', (stream, head) => {
  stream.on('error', () => {});
  if (head[':protocol'] === 'websocket' && head[':path'] === '/chat') {
    stream.respond({':status': 200, 'sec-websocket-protocol': 'chat'});
    stream.pipe(stream);
  } else {
    stream.respond({':status': head[':protocol'] ? 404 : 200}, {endStream: true});
  }
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
