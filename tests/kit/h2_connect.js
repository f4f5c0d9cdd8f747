// HTTP/1.1 requests of node's, inside CONNECTs over one HTTP/2 connection to a forward proxy (RFC 9113 section 8.5).
// Usage: node h2_connect.js PROXY AUTHORITY HOST COUNT SIZE. Each request is a POST of SIZE bytes to /n/NUMBER; what the
// application answered comes as one JSON array, or {"status": …} where the proxy refuses the CONNECT.
const http = require('http'), http2 = require('http2');
const [proxy, authority, host, count, size] = process.argv.slice(2);
const session = http2.connect(proxy);
const body = Buffer.alloc(Number(size), 'x');

const tunnel = () => new Promise((done, fail) => {
  const stream = session.request({':method': 'CONNECT', ':authority': authority}, {endStream: false});
  stream.on('error', fail);
  stream.on('response', head => head[':status'] === 200 ? done(stream) : fail(head));
});
const ask = (stream, number) => new Promise((done, fail) => {
  const options = {method: 'POST', path: '/n/' + number, headers: {host}, createConnection: () => stream};
  const request = http.request(options, answer => {
    let text = '';
    answer.setEncoding('utf8').on('data', piece => { text += piece; }).on('end', () => done(JSON.parse(text)));
  });
  request.on('error', fail).end(body);
});
Promise.all([...Array(Number(count)).keys()].map(number => tunnel().then(stream => ask(stream, number))))
  .then(answers => console.log(JSON.stringify(answers)), failed => console.log(JSON.stringify({status: failed[':status'] || String(failed)})))
  .finally(() => session.destroy());
