'use strict';
// Calls of every kind by @grpc/grpc-js, to the port given; prints what became of them as JSON.
const crypto = require('crypto');
const grpc = require('@grpc/grpc-js');
const { SERVICE, UNLIMITED } = require('./methods.js');

const Client = grpc.makeGenericClientConstructor(SERVICE, 'kit.Echo');
const client = new Client(`127.0.0.1:${process.argv[2]}`, grpc.credentials.createInsecure(), UNLIMITED);
const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const pause = (s) => new Promise((done) => setTimeout(done, s * 1000));

const unary = (name, body, metadata = new grpc.Metadata(), options = within(60)) => new Promise((done) => {
  const got = {};
  const call = client[name](body, metadata, options, (error, answer) => { got.error = error; got.answer = answer; });
  call.on('metadata', (front) => { got.front = front.getMap(); });
  call.on('status', (status) => { got.code = status.code; got.details = status.details; got.behind = status.metadata.getMap(); done(got); });
});

const stream = (call, onData = () => {}) => new Promise((done) => {
  const got = { pieces: [] };
  call.on('data', (piece) => { got.pieces.push(piece); onData(piece); });
  call.on('error', () => {});
  call.on('status', (status) => { got.code = status.code; got.details = status.details; got.behind = status.metadata.getMap(); done(got); });
});

async function seen(name, key) {
  for (;;) {
    const all = JSON.parse((await unary('Seen', Buffer.alloc(0))).answer);
    if (all[name] && key in all[name]) return all[name];
    await pause(0.02);
  }
}

async function main() {
  const out = {};
  out.unary = (await unary('Echo', Buffer.from('hello'))).answer.toString();

  const metadata = new grpc.Metadata();
  metadata.add('x-text', 'a, b=c');
  metadata.add('x-raw-bin', Buffer.from([0, 255, 10, 13]));
  const told = await unary('Echo', Buffer.alloc(0), metadata);
  out.metadata = [told.front['x-text'], told.front['x-raw-bin'].toString('hex'), told.behind['trailing-x-text'], told.behind['trailing-x-raw-bin'].toString('hex')];

  const failed = await unary('Fail', Buffer.from(JSON.stringify({ code: 9, details: 'grüße, 100% €' })));
  out.fail = [failed.code, failed.details, failed.behind['grpc-status-details-bin'].toString('hex'), failed.behind['x-reason']];

  out.collect = await new Promise((done, wrong) => {
    const call = client.Collect(new grpc.Metadata(), within(60), (error, answer) => (error ? wrong(error) : done(JSON.parse(answer).bytes)));
    for (let number = 0; number < 100; number += 1) call.write(Buffer.alloc(number));
    call.end();
  });

  const spread = await stream(client.Spread(Buffer.from(JSON.stringify({ count: 300, size: 2000 })), within(60)));
  out.spread = [spread.code, spread.pieces.length, spread.pieces.every((piece, at) => piece.readUInt32BE() === at)];
  const cut = await stream(client.Spread(Buffer.from(JSON.stringify({ count: 3, size: 20, code: 10, details: 'enough' })), within(60)));
  out.behind = [cut.code, cut.pieces.length, cut.details];

  const talk = client.Talk(within(60));
  let said = 0;
  const answers = stream(talk, (piece) => {
    if (piece.toString() === `${said}` && (said += 1) < 100) talk.write(Buffer.from(`${said}`)); else talk.end();
  });
  talk.write(Buffer.from('0'));
  out.talk = [(await answers).code, said];

  const waiting = client.Wait(Buffer.from('js-cancel'), new grpc.Metadata(), within(60), () => {});
  const ended = new Promise((done) => waiting.on('status', (status) => done(status.code)));
  await seen('js-cancel', 'began');
  const at = seconds();
  waiting.cancel();
  out.cancel = [await ended, (await seen('js-cancel', 'ended')).ended - at < 1];

  const late = await unary('Wait', Buffer.from('js-late'), new grpc.Metadata(), within(0.5));
  out.deadline = [late.code, (await seen('js-late', 'began')).left <= 0.6];

  const big = crypto.randomBytes(1 << 20);
  const body = Buffer.concat(Array(64).fill(big));
  out.big = (await unary('Echo', body)).answer.equals(body);

  const many = await Promise.all([...Array(200).keys()].map((number) => unary('Echo', Buffer.from(`${number}`))));
  out.many = many.every((each, number) => each.answer.toString() === `${number}`);

  console.log(JSON.stringify(out));
  client.close();
}

main().catch((problem) => { console.error(problem); process.exit(1); });
