// A real OpenID provider by oidc-provider, with client credentials: node server.js PORT CONTROL CERTIFICATE KEY FOLDER
//
// Access tokens are JWTs for the `resource` that was asked for. Its signing keys are kept in FOLDER/keys.json, so that
// they outlive the process. CONTROL is a second, plain port on which a test says what is to happen:
//   POST /rotate?keep=1&alg=ES256   sign by a new key from now on; the old ones are published still, or not
//   POST /mode?mode=up              down (connections are cut), slow (no answer for ever), redirect, huge, or empty
//   GET  /seen                      how often each path was asked for
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as path from 'node:path';
import { Provider } from 'oidc-provider';

const [port, control, certificate, key, folder] = process.argv.slice(2);
const issuer = `https://localhost:${port}`;
const keysFile = path.join(folder, 'keys.json');
const seen = {};
let mode = 'up';

function newKey(alg) {
  const pair = alg.startsWith('ES')
    ? crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : alg === 'Ed25519' ? crypto.generateKeyPairSync('ed25519') : crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...pair.privateKey.export({ format: 'jwk' }), kid: crypto.randomUUID(), use: 'sig', alg };
}

const clients = [
  { client_id: 'billing', client_secret: 'a-secret-of-the-tests-0123456789', scope: 'orders:read orders:write' },
  { client_id: 'bound', client_secret: 'a-secret-of-the-tests-0123456789', scope: 'orders:read orders:write',
    tls_client_certificate_bound_access_tokens: true },
];

function make(keys) {
  const provider = new Provider(issuer, {
    clients: clients.map((each) => ({
      ...each, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: keys[0].alg,
    })),
    jwks: { keys },
    scopes: ['orders:read', 'orders:write'],
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        getCertificate: (ctx) => {
          const given = ctx.get('x-client-certificate');
          return given ? new crypto.X509Certificate(Buffer.from(given, 'base64')) : undefined;
        },
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: 'orders:read orders:write', audience: resource, accessTokenFormat: 'jwt',
          accessTokenTTL: Number(ctx.get('x-lifetime') || 600), jwt: { sign: { alg: keys[0].alg } },
        }),
      },
    },
  });
  return provider.callback();
}

let keys = fs.existsSync(keysFile) ? JSON.parse(fs.readFileSync(keysFile)) : [newKey('RS256')];
let callback;
function use(next) {
  keys = next;
  fs.writeFileSync(keysFile, JSON.stringify(keys), { mode: 0o600 });
  callback = make(keys);
}
use(keys);

https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, (request, response) => {
  const asked = request.url.split('?')[0];
  seen[asked] = (seen[asked] || 0) + 1;
  if (mode === 'down') return request.socket.destroy();
  if (mode === 'slow') return undefined;
  if (mode === 'redirect') return response.writeHead(302, { location: 'https://localhost:1/keys' }).end();
  if (mode === 'empty') return response.writeHead(200, { 'content-type': 'application/json' }).end('{"keys":[]}');
  if (mode === 'huge') {
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(`{"keys":[${'{"kty":"RSA"},'.repeat(750000)}{}]}`);
  }
  return callback(request, response);
}).listen(Number(port), '127.0.0.1');

http.createServer((request, response) => {
  const url = new URL(request.url, 'http://control');
  if (url.pathname === '/mode') mode = url.searchParams.get('mode');
  if (url.pathname === '/rotate') {
    const fresh = newKey(url.searchParams.get('alg') || keys[0].alg);
    use(url.searchParams.get('keep') === '1' ? [fresh, ...keys] : [fresh]);
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ mode, kid: keys[0].kid, seen }));
}).listen(Number(control), '127.0.0.1');
