//! Many MQTT connections that do nothing but answer one ping.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::{LOOK_UP, PATIENCE};
use crate::conn::{Conn, Progress, SCRATCH_BYTES};
use crate::mqtt;
use crate::poller::Poller;

const KEEP_ALIVE_S: u16 = 3600;

/// How many handshakes are under way at once: below the smallest listen backlog in use.
const BATCH: usize = 64;

/// Connected devices that send nothing.
pub(crate) struct Idlers {
    poller: Poller,
    conns: Vec<Conn>,
}

impl Idlers {
    /// Connects `count` devices.
    ///
    /// # Errors
    /// Any refusal.
    pub(crate) fn connect(address: SocketAddr, count: usize) -> Result<Self> {
        let poller = Poller::new()?;
        let mut conns: Vec<Conn> = Vec::with_capacity(count);
        while conns.len() < count {
            let from = conns.len();
            for token in from..(from + BATCH).min(count) {
                let hello = mqtt::connect(&format!("idle-{token:05}"), KEEP_ALIVE_S);
                let conn = Conn::start(address, token, &hello);
                conns.push(conn.with_context(|| format!("idle connection number {token}"))?);
            }
            for conn in &mut conns[from..] {
                conn.finish(&poller, mqtt::connack).with_context(|| format!("after {from} idle connections"))?;
            }
        }
        Ok(Self { poller, conns })
    }

    /// Pings on every connection and waits for every answer.
    ///
    /// # Errors
    /// A connection that the server has closed or does not answer.
    pub(crate) fn ping_all(&mut self) -> Result<()> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut ready = Vec::new();
        let mut progress = Progress::new(PATIENCE);
        let (mut asked, mut answered) = (0, 0);
        while answered < self.conns.len() {
            while asked < self.conns.len() && asked < answered + BATCH {
                self.conns[asked].send(&self.poller, &mqtt::PINGREQ)?;
                asked += 1;
            }
            self.poller.wait_until(Instant::now() + LOOK_UP, &mut ready)?;
            for event in &ready {
                let Some(conn) = self.conns.get_mut(event.token) else { bail!("an unknown token") };
                conn.read(&mut scratch, |bytes| {
                    mqtt::packets(bytes, |kind, _| {
                        ensure!(kind == mqtt::PINGRESP, "an idle connection got a packet of type {kind}");
                        answered += 1;
                        Ok(())
                    })
                })?;
                progress.moved();
            }
            progress.check(|| format!("{answered} of {asked} pings were answered"))?;
        }
        Ok(())
    }
}
