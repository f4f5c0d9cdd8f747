'use strict';
// The methods of kit.Echo, over plain bytes; the same as in tests/kit/grpc_server.py.
const plain = {
  requestSerialize: (x) => x, requestDeserialize: (x) => x, responseSerialize: (x) => x, responseDeserialize: (x) => x,
};
const method = (name, requestStream, responseStream) =>
  ({ path: `/kit.Echo/${name}`, requestStream, responseStream, ...plain });

exports.SERVICE = {
  Echo: method('Echo', false, false),
  Collect: method('Collect', true, false),
  Spread: method('Spread', false, true),
  Talk: method('Talk', true, true),
  Fail: method('Fail', false, false),
  Wait: method('Wait', false, false),
  Listen: method('Listen', true, true),
  Seen: method('Seen', false, false),
};
exports.UNLIMITED = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 };
