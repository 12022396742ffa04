//! `tidegate-bench stored`: do stored sessions, what waits in them and retained messages survive `kill -9`, and how long does the
//! node take to start with them?
//!
//! A node is given sessions, a message into each, and retained messages, all with QoS 1. As soon as the last one is acknowledged it
//! is killed with SIGKILL, started again on the same data, and asked for every single one. Then it is killed once more, at rest: what a
//! start takes that has nothing to replay.

mod counts;
mod messages;
mod publisher;
mod report;
mod retained;
mod sessions;
mod tally;
mod visits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::counts::Counts;
use self::report::{Part, Report, Size};
use self::retained::Topics;
use self::sessions::{Making, Resuming};
use crate::mqtt::Publish;
use crate::peers::say;
use crate::server::Server;
use crate::{inside, process, status};

/// Connections at the same time: a fleet that comes back, but no more than any listen backlog takes.
const AT_ONCE: usize = 256;
/// Subscribers at the same time. Each reads the topics of one filter.
const READERS: usize = 16;

/// What is measured, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The node's binary.
    pub(crate) tidegate: PathBuf,
    /// A folder on the disk.
    pub(crate) dir: PathBuf,
    /// Stored sessions.
    pub(crate) sessions: usize,
    /// Retained messages; a multiple of [`messages::GROUP`].
    pub(crate) retained: usize,
}

impl Plan {
    /// What of the node's configuration stands in the way: the rate at which connections are accepted, and its limits, where more than
    /// they allow is wanted.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("TIDEGATE_MQTT__LIMITS__CONNECTS_PER_S", "1000000".to_owned())];
        let mut raise = |name, default: usize, wanted: usize| {
            if wanted > default {
                settings.push((name, wanted.to_string()));
            }
        };
        raise("TIDEGATE_MQTT__LIMITS__SESSIONS", 100_000, self.sessions);
        // The readers' subscriptions come beside those of the sessions.
        raise("TIDEGATE_MQTT__LIMITS__SUBSCRIPTIONS_TOTAL", 1_000_000, self.sessions + READERS);
        raise("TIDEGATE_MQTT__LIMITS__RETAINED_MESSAGES", 1_000_000, self.retained);
        raise("TIDEGATE_MQTT__LIMITS__RETAINED_BYTES", 1 << 30, self.retained * messages::RETAINED_BYTES);
        settings
    }
}

/// Runs it and gives the tables in Markdown, and whether everything came back once and as it was.
///
/// # Errors
/// A node that fails, or refuses anything.
pub(crate) fn run(plan: &Plan) -> Result<(String, bool)> {
    let group = messages::GROUP;
    ensure!(plan.sessions > 0, "sessions: at least one");
    ensure!(plan.retained > 0 && plan.retained.is_multiple_of(group), "retained messages: a multiple of {group}");
    let settings = plan.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut node = Server::node(&plan.tidegate, &plan.dir, &settings)?;
    let report = measure(plan, &mut node, &settings).map_err(|error| node.explain(error))?;
    Ok((report.markdown(), report.complete()))
}

fn measure(plan: &Plan, node: &mut Server, settings: &[(&str, &str)]) -> Result<Report> {
    let (empty, mut parts) = (size(node)?, [Part::default(); 3]);
    let before_retained = store(plan, node, &mut parts)?;
    let acknowledged = Instant::now();
    let rss = process::resident_bytes(node.pid())?;
    node.kill()?;
    let killed_after = acknowledged.elapsed();
    let killed = Size { rss, disk: inside::disk_bytes(&node.data()) };

    let start = node.start_again(&plan.tidegate, settings)?;
    let (started, rss_peak) = (size(node)?, process::peak_resident_bytes(node.pid())?);
    say(&format!("killed, and ready after {:.2} s", start.as_secs_f64()));
    let counts_started = counts(node)?;
    check(plan, node, &mut parts)?;
    let counts_checked = counts(node)?;

    status::wait_for_checkpoints(addresses(node)?.1)?;
    let checked = size(node)?;
    node.kill()?;
    let start_at_rest = node.start_again(&plan.tidegate, settings)?;
    say(&format!("killed at rest, and ready after {:.2} s", start_at_rest.as_secs_f64()));
    Ok(Report {
        wanted: Counts::wanted(plan),
        parts,
        killed_after,
        start,
        start_at_rest,
        sizes: [empty, before_retained, killed, started, checked, size(node)?],
        rss_peak,
        counts: [counts_started, counts_checked, counts(node)?],
    })
}

/// Makes the sessions, puts a message into each, and publishes the retained messages. Gives what the node took before those.
fn store(plan: &Plan, node: &Server, [sessions, queued, retained]: &mut [Part; 3]) -> Result<Size> {
    let (mqtt, http) = addresses(node)?;
    sessions.made = visits::run(mqtt, plan.sessions, AT_ONCE, &mut Making)?;
    // A message that overtakes a DISCONNECT would go to a connection, and come again marked as a duplicate.
    counts::wait_until_nobody_is_connected(http)?;
    say(&format!("{} sessions in {:.1} s", plan.sessions, sessions.made.as_secs_f64()));
    queued.made = publisher::publish(mqtt, plan.sessions, |number| {
        Publish::new(&messages::inbox(number), messages::queued(number).as_bytes(), true)
    })?;
    say(&format!("a message into each in {:.1} s", queued.made.as_secs_f64()));
    let before_retained = size(node)?;
    retained.made = publisher::publish(mqtt, plan.retained, |number| {
        Publish::retained(&messages::retained_topic(number), messages::retained(number).as_bytes())
    })?;
    Ok(before_retained)
}

/// Asks for every session with what waits in it, and for every retained message.
fn check(plan: &Plan, node: &Server, [sessions, queued, retained]: &mut [Part; 3]) -> Result<()> {
    let (mqtt, http) = addresses(node)?;
    let mut resuming = Resuming::default();
    sessions.checked = visits::run(mqtt, plan.sessions, AT_ONCE, &mut resuming)?;
    queued.checked = sessions.checked;
    (sessions.tally, queued.tally) = (resuming.sessions, resuming.messages);
    say(&format!("sessions: {:?}; in them: {:?}", sessions.tally, queued.tally));
    let mut topics = Topics::default();
    retained.checked = visits::run(mqtt, plan.retained / messages::GROUP, READERS, &mut topics)?;
    retained.tally = topics.tally;
    say(&format!("retained messages: {:?}", retained.tally));
    counts::wait_until_nobody_is_connected(http)
}

fn counts(node: &Server) -> Result<Counts> {
    let (mqtt, http) = addresses(node)?;
    Counts::of(mqtt, http)
}

/// Where it speaks MQTT and HTTP: another place after each start.
fn addresses(node: &Server) -> Result<(SocketAddr, SocketAddr)> {
    Ok((node.mqtt.context("it speaks no MQTT")?, node.http.context("it speaks no HTTP")?))
}

fn size(node: &Server) -> Result<Size> {
    Ok(Size { rss: process::resident_bytes(node.pid())?, disk: inside::disk_bytes(&node.data()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_only_where_they_stand_in_the_way() {
        let plan = |sessions, retained| Plan { tidegate: PathBuf::new(), dir: PathBuf::new(), sessions, retained };
        assert_eq!(plan(50_000, 1_000_000).settings().len(), 1);
        let settings = plan(200_000, 12_000_000).settings();
        assert_eq!(settings.len(), 4, "{settings:?}");
        assert!(settings.contains(&("TIDEGATE_MQTT__LIMITS__SESSIONS", "200000".to_owned())));
    }
}
