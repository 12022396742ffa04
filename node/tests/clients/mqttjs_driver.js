// Drives MQTT.js from the black-box tests: one JSON command a line on stdin, one JSON event a line on stdout.
// Commands and events are described in ../support/driver.rs.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const mqtt = require('mqtt');

const emit = (event, fields) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
let client;

const commands = {
  connect({ host, port, id, version, will, willPayload, stored, transport, path, ca, cert, key, user, password }) {
    let lostCode = null;
    const file = (name) => (name === undefined ? undefined : fs.readFileSync(name));
    client = mqtt.connect({
      protocol: { tls: 'mqtts', ws: 'ws', wss: 'wss' }[transport] ?? 'mqtt',
      path: path || undefined,
      ca: file(ca),
      cert: file(cert),
      key: file(key),
      host,
      port,
      clientId: id,
      username: user,
      password,
      protocolVersion: version,
      clean: !stored,
      properties: stored && version === 5 ? { sessionExpiryInterval: 7200 } : undefined,
      reconnectPeriod: 0,
      will: will === undefined ? undefined : { topic: will, payload: Buffer.from(willPayload), qos: 1, retain: false },
    });
    client.on('connect', (connack) => emit('connected', { code: connack.reasonCode ?? connack.returnCode, present: connack.sessionPresent }));
    client.on('disconnect', (packet) => { lostCode = packet.reasonCode; });
    client.on('close', () => emit('lost', { code: lostCode }));
    client.on('error', (error) => {
      if (typeof error.code === 'number') lostCode = error.code;
      process.stderr.write(`${error.stack}\n`);
    });
    client.on('message', (topic, payload, packet) => {
      const ids = [packet.properties?.subscriptionIdentifier ?? []].flat();
      const replyTo = packet.properties?.responseTopic;
      const correlation = packet.properties?.correlationData?.toString();
      emit('message', {
        topic,
        payload: payload.toString(),
        qos: packet.qos,
        retain: packet.retain,
        ids: ids.sort((a, b) => a - b),
        replyTo,
        correlation,
      });
    });
  },

  subscribe({ filter, qos, noLocal, subscriptionId }) {
    const options = { qos, nl: noLocal ?? false };
    if (subscriptionId !== undefined) options.properties = { subscriptionIdentifier: subscriptionId };
    client.subscribe(filter, options, (error, granted, packet) => {
      emit('suback', { codes: packet?.granted ?? granted?.map((one) => one.qos) ?? [error.code] });
    });
  },

  unsubscribe({ filter }) {
    client.unsubscribe(filter, () => emit('unsuback', {}));
  },

  publish({ topic, payload, qos, ack, retain, correlation }) {
    const properties = {};
    if (ack !== undefined) properties.userProperties = { ack };
    if (correlation !== undefined) properties.correlationData = Buffer.from(correlation);
    client.publish(topic, payload, { qos, properties, retain: retain ?? false }, (error, packet) => {
      emit('puback', { code: error?.code ?? packet?.reasonCode ?? 0 });
    });
  },

  disconnect() {
    client.end();
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line);
  commands[command.op](command);
}).on('close', () => process.exit(0));
