// aedes as its documentation starts it: one process, everything in memory, on a free loopback port.
import { createServer } from 'node:net';
import { Aedes } from 'aedes';

const broker = await Aedes.createBroker();
const server = createServer(broker.handle);
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  console.log(`aedes ready mqtt=127.0.0.1:${server.address().port}`);
});
