//! The node's metrics in Prometheus' text format (version 0.0.4).

use std::{fmt::Write as _, sync::atomic::Ordering};

use tidegate_actors::{ledger::Ledger, lifetime::Lifetime, script::ScriptStatus};

use crate::{commands::Status, edge::EdgeLoop, mqtt::drops::DropReason, transport::admission::Limit};

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.value(name, "", value);
    }
}

/// Renders everything.
pub(super) fn render(edge: &EdgeLoop, ledger: &Ledger, lifetime: &Lifetime) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    readings(&mut text, ledger);
    lifetime_readings(&mut text, lifetime);
    node(&mut text, edge);
    identity(&mut text, edge);
    durability(&mut text, edge);
    commands(&mut text, edge);
    scripts(&mut text, edge);
    bridges(&mut text, edge);
    text.0
}

fn readings(text: &mut Text, ledger: &Ledger) {
    text.one("tidegate_readings_received_total", "counter", "Readings that came in.", ledger.received);
    text.one(
        "tidegate_readings_committed_total",
        "counter",
        "Readings that made their device's state.",
        ledger.committed,
    );
    text.one("tidegate_readings_in_flight", "gauge", "Readings between admission and fold.", ledger.in_flight);
    for (kind, reasons) in ledger.kinds() {
        let name = format!("tidegate_readings_{kind}_total");
        text.head(&name, "counter", &format!("Readings {kind}, by reason."));
        for (reason, count) in reasons {
            text.value(&name, &format!("{{reason=\"{reason}\"}}"), count);
        }
    }
    let help = "1 when received = committed + conflated + rejected + dropped + parked + in flight.";
    text.one("tidegate_ledger_balanced", "gauge", help, u8::from(ledger.balanced()));
    let help = "Received readings that are not accounted for; not 0 is a defect.";
    text.one("tidegate_ledger_difference", "gauge", help, ledger.difference());
}

/// Gauges: an import or a restored backup may lower them.
fn lifetime_readings(text: &mut Text, lifetime: &Lifetime) {
    const NAME: &str = "tidegate_lifetime_readings";
    text.head(NAME, "gauge", "Readings that this data directory ever took in, by what became of them.");
    text.value(NAME, "{outcome=\"committed\",reason=\"\"}", lifetime.committed);
    for (outcome, reasons) in lifetime.reasons.kinds() {
        for (reason, count) in reasons {
            text.value(NAME, &format!("{{outcome=\"{outcome}\",reason=\"{reason}\"}}"), count);
        }
    }
}

fn node(text: &mut Text, edge: &EdgeLoop) {
    let (counters, services, sample) = (&edge.shared.counters, edge.handle.services(), edge.shared.vitals.last());
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.one("tidegate_uptime_seconds", "gauge", "Seconds since the node started.", services.uptime_ms() / 1_000);
    text.one("tidegate_resident_memory_bytes", "gauge", "Resident memory of the node.", crate::vitals::rss());
    text.one("tidegate_memory_limit_bytes", "gauge", "The memory limit.", edge.shared.settings.memory_limit);
    text.one("tidegate_devices_known", "gauge", "Devices with a state.", sample.devices_known);
    let mqtt = counters.mqtt_connections.load(Ordering::Relaxed);
    text.one("tidegate_mqtt_connections", "gauge", "MQTT connections.", mqtt);
    text.one(
        "tidegate_mqtt_messages_received_total",
        "counter",
        "PUBLISH packets of clients.",
        load(&counters.mqtt_received),
    );
    text.one("tidegate_mqtt_messages_sent_total", "counter", "Messages to subscribers.", load(&counters.mqtt_sent));
    let retained = edge.shared.retained.size();
    text.one("tidegate_mqtt_retained_messages", "gauge", "Retained messages.", retained.messages);
    let help = "Bytes of the retained messages with topics, properties and places (limit mqtt.limits.retained_bytes).";
    text.one("tidegate_mqtt_retained_bytes", "gauge", help, retained.bytes);
    let help = "Messages with the retain flag that were not retained (limits retained_messages, retained_bytes).";
    text.one("tidegate_mqtt_messages_not_retained_total", "counter", help, load(&counters.mqtt_not_retained));
    let subscriptions = edge.shared.subscriptions.load(Ordering::Relaxed);
    text.one("tidegate_mqtt_subscriptions", "gauge", "MQTT subscriptions of all sessions.", subscriptions);
    let dropped = "tidegate_mqtt_messages_dropped_total";
    text.head(dropped, "counter", "Messages that subscribers did not get, by reason.");
    for reason in DropReason::ALL {
        text.value(dropped, &format!("{{reason=\"{}\"}}", reason.name()), counters.mqtt_dropped.of(reason));
    }
    let help = "MQTT sessions that outlive their connection.";
    text.one("tidegate_mqtt_sessions_stored", "gauge", help, edge.shared.stored_sessions.count());
    let help = "The most that may (limit mqtt.limits.sessions).";
    text.one("tidegate_mqtt_sessions_limit", "gauge", help, edge.shared.settings.mqtt_sessions);
    let help = "MQTT connections closed for what they sent.";
    text.one("tidegate_mqtt_connections_refused_total", "counter", help, load(&counters.mqtt_refused));
    connections(text, edge);
    text.one("tidegate_viewers", "gauge", "Live viewers.", counters.viewers.load(Ordering::Relaxed));
    let help = "Updates that gave way to newer ones in viewers that have left.";
    text.one("tidegate_viewer_updates_conflated_total", "counter", help, load(&counters.viewer_conflated));
    text.one(
        "tidegate_viewers_stalled_total",
        "counter",
        "Viewers closed: they did not read.",
        load(&counters.viewers_stalled),
    );
    let help = "Idempotency keys that are remembered with their bodies.";
    text.one("tidegate_idempotency_keys", "gauge", help, edge.shared.keys.len());
    let help = "Idempotency keys that were forgotten (limit idempotency_keys).";
    text.one("tidegate_idempotency_keys_forgotten_total", "counter", help, edge.shared.keys.forgotten());
    text.one("tidegate_loop_panics_total", "counter", "Turns of loops that panicked.", load(&services.panics));
    for (name, help) in [("lag_seconds", "How late a loop's timer was."), ("devices", "Devices active on a loop.")] {
        let name = format!("tidegate_loop_{name}");
        text.head(&name, "gauge", help);
        for health in &sample.loops {
            let labels = format!("{{loop=\"{}\"}}", health.id);
            if name.ends_with("seconds") {
                text.value(&name, &labels, health.lag_ms / 1e3);
            } else {
                text.value(&name, &labels, health.devices);
            }
        }
    }
    text.one("tidegate_blocking_pool_queued", "gauge", "Jobs that wait for the blocking pool.", services.pool.queued());
    text.one(
        "tidegate_blocking_pool_limit",
        "gauge",
        "Jobs that may wait (limit runtime.blocking_jobs).",
        services.pool.limit(),
    );
    text.one("tidegate_blocking_pool_threads", "gauge", "Threads of the blocking pool.", services.pool.threads());
    text.one("tidegate_blocking_pool_running", "gauge", "Jobs that run on the blocking pool.", services.pool.running());
    let help = "Jobs that the blocking pool refused (limit runtime.blocking_jobs).";
    text.one("tidegate_blocking_pool_refused_total", "counter", help, services.pool.refused());
    slow_work(text, edge);
}

/// What handlers wait for.
fn slow_work(text: &mut Text, edge: &EdgeLoop) {
    let work = edge.shared.scripts.slow_work();
    let help = "Pieces of handlers' slow work that are on the blocking pool.";
    text.one("tidegate_script_work_running", "gauge", help, work.running);
    let help = "The most that may be (limit script_pool_threads, setting scripts.pool_threads).";
    text.one("tidegate_script_work_threads", "gauge", help, work.threads);
    let help = "Pieces of handlers' slow work that wait for that (limit script_pool_queue).";
    text.one("tidegate_script_work_waiting", "gauge", help, work.waiting);
    const WORK: &str = "tidegate_script_work_total";
    text.head(WORK, "counter", "Pieces of handlers' slow work, by operation and by what became of them.");
    for of in &work.operations {
        for (result, count) in [("done", of.done), ("failed", of.failed), ("refused", of.refused)] {
            text.value(WORK, &format!("{{operation=\"{}\",result=\"{result}\"}}", of.name), count);
        }
    }
    let tasks = &work.tasks;
    let help = "Tasks of handlers (new Worker) that were begun.";
    text.one("tidegate_script_tasks_started_total", "counter", help, tasks.started);
    const TASKS: &str = "tidegate_script_tasks_total";
    text.head(TASKS, "counter", "Tasks of handlers that ended, by how.");
    for of in &tasks.ended {
        text.value(TASKS, &format!("{{result=\"{}\"}}", of.result), of.count);
    }
    let help = "Time that tasks of handlers took, with that of their processes.";
    #[expect(clippy::cast_precision_loss, reason = "some centuries of microseconds")]
    text.one("tidegate_script_tasks_seconds_total", "counter", help, tasks.us as f64 / 1e6);
}

fn identity(text: &mut Text, edge: &EdgeLoop) {
    let auth = &edge.shared.auth;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (users, tokens) = auth.counts();
    text.one("tidegate_auth_enabled", "gauge", "1 where clients must authenticate.", u8::from(auth.is_on()));
    text.one("tidegate_auth_users", "gauge", "Users in the users' file.", users);
    text.one("tidegate_auth_tokens", "gauge", "Tokens in the users' file.", tokens);
    const LOGINS: &str = "tidegate_auth_logins_total";
    text.head(LOGINS, "counter", "Credentials that were shown, over MQTT and HTTP, by result.");
    text.value(LOGINS, "{result=\"ok\"}", load(&auth.counters.accepted));
    text.value(LOGINS, "{result=\"denied\"}", load(&auth.counters.refused));
    const DENIED: &str = "tidegate_auth_denied_total";
    text.head(DENIED, "counter", "What somebody known was not allowed, by action.");
    for (action, counter) in [
        ("publish", &auth.counters.publishes_denied),
        ("subscribe", &auth.counters.subscriptions_denied),
        ("deliver", &auth.counters.deliveries_denied),
        ("request", &auth.counters.requests_denied),
    ] {
        text.value(DENIED, &format!("{{action=\"{action}\"}}"), load(counter));
    }
    const BANS: &str = "tidegate_auth_bans_total";
    let (addresses, clients) = auth.bans.counts();
    text.head(BANS, "counter", "Bans: of addresses for wrong credentials, of clients that come and go.");
    text.value(BANS, "{of=\"address\"}", addresses);
    text.value(BANS, "{of=\"client\"}", clients);
    let help = "Connections that ended because their user was removed or disabled.";
    text.one("tidegate_auth_revoked_total", "counter", help, load(&auth.counters.revoked));
    let help = "Changes of users, rules or keys that could not be used; what was there before holds.";
    text.one("tidegate_auth_reloads_failed_total", "counter", help, load(&auth.counters.reloads_failed));
    let help = "Lines that the audit log lacks (limit audit_queue).";
    text.one("tidegate_audit_lines_dropped_total", "counter", help, auth.audit.dropped());
}

/// Who may come in, and on what.
fn connections(text: &mut Text, edge: &EdgeLoop) {
    let shared = &edge.shared;
    let (waiting, http) = shared.admission.waiting_and_http();
    let help = "MQTT clients that have not connected yet (limit mqtt.limits.pre_auth_connections).";
    text.one("tidegate_mqtt_connections_pre_auth", "gauge", help, waiting);
    text.one("tidegate_http_connections", "gauge", "HTTP connections (limit http.limits.connections).", http);
    const TURNED_AWAY: &str = "tidegate_connections_turned_away_total";
    text.head(
        TURNED_AWAY,
        "counter",
        "Connections that were closed because of a limit, before anything was read of them.",
    );
    for limit in Limit::ALL {
        text.value(TURNED_AWAY, &format!("{{limit=\"{}\"}}", limit.name()), shared.admission.turned_away(limit));
    }
    let failed = shared.counters.tls_failed.load(Ordering::Relaxed);
    text.one("tidegate_tls_handshakes_failed_total", "counter", "TLS handshakes that came to nothing.", failed);
    let listeners = || {
        [("mqtt", &shared.mqtt_tls), ("http", &shared.http_tls)]
            .into_iter()
            .filter_map(|(of, tls)| Some((of, tls.as_ref()?)))
    };
    if listeners().next().is_none() {
        return;
    }
    const EXPIRES: &str = "tidegate_tls_certificate_expires_seconds";
    text.head(EXPIRES, "gauge", "Seconds until the node's certificate ends; negative: since then.");
    for (of, certificates) in listeners() {
        text.value(EXPIRES, &format!("{{listener=\"{of}\"}}"), certificates.expires_in());
    }
    const RELOADS: &str = "tidegate_tls_reloads_total";
    text.head(RELOADS, "counter", "Times that changed TLS files were read again.");
    for (of, certificates) in listeners() {
        let (taken, refused) = certificates.reloads();
        text.value(RELOADS, &format!("{{listener=\"{of}\",result=\"taken\"}}"), taken);
        text.value(RELOADS, &format!("{{listener=\"{of}\",result=\"refused\"}}"), refused);
    }
}

fn durability(text: &mut Text, edge: &EdgeLoop) {
    let journal = edge.handle.services().journal.status();
    let checkpoint = edge.handle.services().checkpointer.status();
    text.one("tidegate_journal_healthy", "gauge", "1 when the journal takes records.", u8::from(journal.healthy));
    text.one("tidegate_journal_position", "gauge", "The last durable position.", journal.committed);
    text.one("tidegate_journal_bytes", "gauge", "Bytes of the journal's segments.", journal.bytes);
    text.one("tidegate_journal_segments", "gauge", "Segments of the journal.", journal.segments);
    text.one("tidegate_journal_commits_total", "counter", "Commits (write and fdatasync).", journal.commits);
    text.one("tidegate_journal_records_total", "counter", "Records committed.", journal.records);
    text.head("tidegate_journal_commit_seconds", "gauge", "Time of the last 512 commits, by quantile.");
    for (quantile, ms) in [("0.5", journal.commit_p50_ms), ("0.99", journal.commit_p99_ms)] {
        text.value("tidegate_journal_commit_seconds", &format!("{{quantile=\"{quantile}\"}}"), ms / 1e3);
    }
    text.one(
        "tidegate_checkpoint_healthy",
        "gauge",
        "1 when the last checkpoint was written.",
        u8::from(checkpoint.healthy),
    );
    text.one("tidegate_checkpoint_position", "gauge", "The position that the store has.", checkpoint.folded);
    let help = "Pairs that the edge keeps over restarts, in the store.";
    text.one("tidegate_kept_pairs", "gauge", help, edge.handle.services().store.kept_count());
}

fn commands(text: &mut Text, edge: &EdgeLoop) {
    let (commands, shadows) = (&edge.shared.commands, &edge.shared.shadows);
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    const COMMANDS: &str = "tidegate_commands_total";
    text.head(
        COMMANDS,
        "counter",
        "Commands to devices that ever came to a status; queued is every one that was taken.",
    );
    for status in Status::ALL {
        let count = load(&commands.by_status[status as usize]);
        text.value(COMMANDS, &format!("{{status=\"{}\"}}", status.name()), count);
    }
    let under_way = commands.under_way.load(Ordering::Relaxed);
    text.one("tidegate_commands_under_way", "gauge", "Commands that are not over.", under_way);
    const REFUSED: &str = "tidegate_commands_refused_total";
    text.head(REFUSED, "counter", "Commands that were not taken: the device was not there, or a limit was met.");
    text.value(REFUSED, "{from=\"http\"}", load(&commands.refused));
    text.value(REFUSED, "{from=\"handler\"}", load(&commands.handler_refused));
    const REPLIES: &str = "tidegate_command_replies_refused_total";
    text.head(REPLIES, "counter", "Replies to commands that were not taken, by reason.");
    text.value(REPLIES, "{reason=\"not-waiting\"}", load(&commands.replies_unknown));
    text.value(REPLIES, "{reason=\"not-the-device\"}", load(&commands.replies_refused));
    const SHADOWS: &str = "tidegate_shadow_requests_total";
    text.head(SHADOWS, "counter", "Requests about shadows, by result.");
    for (result, count) in [
        ("updated", &shadows.updates),
        ("got", &shadows.gets),
        ("deleted", &shadows.deletes),
        ("conflict", &shadows.conflicts),
        ("rejected", &shadows.rejected),
    ] {
        text.value(SHADOWS, &format!("{{result=\"{result}\"}}"), load(count));
    }
}

fn scripts(text: &mut Text, edge: &EdgeLoop) {
    let scripts = edge.handle.services().scripts.scripts();
    let label = |name: &str| format!("{{script=\"{}\"}}", name.replace('\\', "\\\\").replace('"', "\\\""));
    for (name, help) in
        [("calls", "Calls of a handler."), ("errors", "Calls that failed."), ("parked", "Readings parked.")]
    {
        let metric = format!("tidegate_script_{name}_total");
        text.head(&metric, "counter", help);
        for script in &scripts {
            let value = match name {
                "calls" => script.calls,
                "errors" => script.errors,
                _ => script.parked,
            };
            text.value(&metric, &label(&script.name), value);
        }
    }
    text.head("tidegate_script_call_seconds", "summary", "Time of a call.");
    for script in &scripts {
        for (quantile, us) in [("0.5", script.p50_us), ("0.99", script.p99_us)] {
            let labels = format!("{},quantile=\"{quantile}\"}}", label(&script.name).trim_end_matches('}'));
            text.value("tidegate_script_call_seconds", &labels, us / 1e6);
        }
        text.value("tidegate_script_call_seconds_sum", &label(&script.name), script.busy_seconds);
        text.value("tidegate_script_call_seconds_count", &label(&script.name), script.calls);
    }
    text.head("tidegate_script_breaker", "gauge", "0 closed, 1 half-open, 2 open, 3 the handler did not load.");
    for script in &scripts {
        let state = match script.status {
            ScriptStatus::Closed => 0,
            ScriptStatus::HalfOpen => 1,
            ScriptStatus::Open => 2,
            ScriptStatus::Broken => 3,
        };
        text.value("tidegate_script_breaker", &label(&script.name), state);
    }
    text.head("tidegate_script_generation", "gauge", "Number of the set of handlers that runs.");
    text.value("tidegate_script_generation", "", edge.shared.scripts.set_generation());
    text.head("tidegate_script_worker_restarts_total", "counter", "Restarts of the script workers.");
    let restarts: u64 = edge.handle.services().scripts.workers().iter().map(|worker| worker.restarts).sum();
    text.value("tidegate_script_worker_restarts_total", "", restarts);
}

fn bridges(text: &mut Text, edge: &EdgeLoop) {
    let bridges: Vec<_> = edge.shared.bridges.status().collect();
    if bridges.is_empty() {
        return;
    }
    // A bridge's name needs no escape: the configuration takes letters, digits, '-', '_' and '.'.
    let label = |name: &str| format!("{{bridge=\"{name}\"}}");
    for (name, kind, help) in [
        ("connected", "gauge", "1 while the broker has accepted the bridge and a subscription."),
        ("messages_total", "counter", "Messages of the broker, those that came again included."),
        ("readings_total", "counter", "Readings of them that the journal has."),
        ("acknowledged_total", "counter", "Messages acknowledged to the broker."),
        ("left_out_total", "counter", "Retained messages that are no readings, as configured."),
        ("in_flight", "gauge", "Messages that are not acknowledged."),
        ("reconnects_total", "counter", "Connections after the first one."),
    ] {
        let metric = format!("tidegate_bridge_{name}");
        text.head(&metric, kind, help);
        for bridge in &bridges {
            let value = match name {
                "connected" => u64::from(bridge.is_connected()),
                "messages_total" => bridge.messages.load(Ordering::Relaxed),
                "readings_total" => bridge.readings.load(Ordering::Relaxed),
                "acknowledged_total" => bridge.acknowledged.load(Ordering::Relaxed),
                "left_out_total" => bridge.left_out.load(Ordering::Relaxed),
                "in_flight" => bridge.in_flight.load(Ordering::Relaxed),
                _ => bridge.reconnects(),
            };
            text.value(&metric, &label(&bridge.name), value);
        }
    }
    const REFUSED: &str = "tidegate_bridge_refused_total";
    text.head(REFUSED, "counter", "Readings of the broker that were refused, by reason.");
    for bridge in &bridges {
        for (reason, count) in bridge.refused() {
            text.value(REFUSED, &format!("{{bridge=\"{}\",reason=\"{reason}\"}}", bridge.name), count);
        }
    }
}
