// Owns the least MQTT 3.1.1 client that the test needs: connect, publish at QoS 1, wait for the ack.
// Written out here so that the test needs no package beyond the browser driver.

import { once } from 'node:events';
import net from 'node:net';

const WAIT_MS = 5000;

/** Connects as `clientId`; resolves to `{publish(topic, payload), close()}`. */
export async function connectDevice(address, clientId) {
  const { hostname, port } = new URL(`mqtt://${address}`);
  const socket = net.connect(Number(port), hostname.replace(/^\[|\]$/g, ''));
  socket.setTimeout(WAIT_MS, () => socket.destroy(new Error(`the node said nothing for ${WAIT_MS} ms`)));
  const reader = packets(socket);
  await once(socket, 'connect');
  // MQTT 3.1.1 section 3.1: protocol name, level 4, clean session, keep alive 60 s, client id.
  socket.write(packet(0x10, Buffer.concat([string('MQTT'), Buffer.from([4, 2, 0, 60]), string(clientId)])));
  const connack = await reader.next();
  if (connack[0] >> 4 !== 2 || connack.at(-1) !== 0) throw new Error(`CONNECT refused: ${connack.toString('hex')}`);
  let id = 0;
  return {
    async publish(topic, payload) {
      id += 1;
      socket.write(packet(0x32, Buffer.concat([string(topic), Buffer.from([id >> 8, id & 255]), Buffer.from(JSON.stringify(payload))])));
      const puback = await reader.next();
      if (puback[0] >> 4 !== 4) throw new Error(`expected a PUBACK, got ${puback.toString('hex')}`);
    },
    close() { socket.end(Buffer.from([0xe0, 0])); },
  };
}

function string(text) {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
}

function packet(first, body) {
  const length = [];
  let rest = body.length;
  do { length.push((rest % 128) | (rest > 127 ? 128 : 0)); rest = Math.floor(rest / 128); } while (rest);
  return Buffer.concat([Buffer.from([first, ...length]), body]);
}

/** Whole packets, one at a time; everything the node sends here is shorter than 128 bytes. */
function packets(socket) {
  let held = Buffer.alloc(0);
  let wake = null;
  let failed = null;
  socket.on('data', (bytes) => { held = Buffer.concat([held, bytes]); wake?.(); });
  socket.on('error', (error) => { failed = error; wake?.(); });
  socket.on('close', () => { failed ??= new Error('the node closed the connection'); wake?.(); });
  return {
    async next() {
      for (;;) {
        if (held.length >= 2 && held.length >= 2 + held[1]) {
          const one = held.subarray(0, 2 + held[1]);
          held = held.subarray(one.length);
          return one;
        }
        if (failed) throw failed;
        await new Promise((resolve) => { wake = resolve; });
      }
    },
  };
}
