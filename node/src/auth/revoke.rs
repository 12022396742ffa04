//! What a change of the files means for those who are connected: the watch that sees it, and the round through all loops.

use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashSet;

use super::{
    audit::Event,
    directory::Standing,
    gate::{Auth, Counters},
};
use crate::{
    edge::{self, EdgeLoop, Shared},
    http::viewer::Seat,
    mqtt::{reason::ReasonCode, sessions},
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What the client of a removed or disabled user is told.
const REVOKED: &str = "the user was removed or disabled";

/// Looks at the files for ever, reads those that changed, and tells all loops. Runs as a task of the main thread.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(LOOK);
    let mut seen = shared.auth.seen_at_start.clone();
    loop {
        tick.tick().await;
        let pool = &shared.runtime.services().pool;
        let auth = Arc::clone(&shared.auth);
        let before = seen.clone();
        let look = pool.try_run(move || {
            let now = auth.seen();
            let changed = before != now;
            (changed.then(|| auth.reload()), now)
        });
        let Ok(look) = look else { continue };
        let Ok((read, now)) = look.await else { continue };
        seen = now;
        match read {
            None => {}
            Some(Ok(gone)) => {
                let (users, tokens) = shared.auth.counts();
                tracing::info!(users, tokens, "read the users and rules again");
                tell(&shared, Arc::new(gone)).await;
            }
            Some(Err(error)) => {
                Counters::add(&shared.auth.counters.reloads_failed);
                tracing::error!("cannot use what has changed; users and rules stay as they were: {error}");
            }
        }
    }
}

/// Every loop looks at everybody who is connected, and ends the sessions of those who are gone.
async fn tell(shared: &Shared, gone: Arc<HashSet<Box<str>>>) {
    loop {
        let gone = Arc::clone(&gone);
        let told = shared.runtime.on_every_loop(move |_| {
            let edge = edge::here();
            look(&edge);
            // What waits for them, and what they have subscribed to, ends with them, connected or not.
            sessions::terminate_all(&edge, &gone, ReasonCode::NOT_AUTHORIZED, REVOKED);
        });
        if told.await.is_ok() {
            return;
        }
        // A revocation must not get lost: a loop whose inbox is full is told again.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Looks at everybody who is connected to this loop: who is gone, who must prove itself again, who may do something else now.
fn look(edge: &Rc<EdgeLoop>) {
    let auth: &Auth = &edge.shared.auth;
    if !auth.is_on() {
        return;
    }
    let now = edge.handle.services().clock.now();
    for_each_seat(edge, |seat| match &seat.caller {
        Some(caller) if auth.standing(caller, now) == Standing::Same => {}
        _ => seat.end(),
    });
    let links: Vec<_> = edge.connections.borrow().iter().cloned().collect();
    for link in links {
        let Some(access) = link.access.borrow().clone() else {
            link.close(ReasonCode::NOT_AUTHORIZED, "this node asks for a user now");
            continue;
        };
        match auth.standing(&access.principal, now) {
            Standing::Same => {
                // What it has subscribed to was granted by the former rules.
                let fresh = auth.access(Arc::clone(&access.principal), &link.client_id);
                fresh.check_all();
                link.access.replace(Some(Rc::new(fresh)));
            }
            Standing::Changed => {
                link.close(ReasonCode::NOT_AUTHORIZED, "the user's credentials or role have changed: connect again");
            }
            Standing::Revoked => {
                Counters::add(&auth.counters.revoked);
                let detail = &*link.client_id;
                let event =
                    Event { action: "revoke", result: "ok", principal: access.principal.shown(), address: "", detail };
                auth.audit.note(&event, now);
                sessions::terminate(edge, &link.client_id, ReasonCode::NOT_AUTHORIZED, REVOKED);
            }
        }
    }
}

fn for_each_seat(edge: &EdgeLoop, look: impl Fn(&Seat)) {
    let seats: Vec<_> = edge.seats.borrow().iter().filter_map(Weak::upgrade).collect();
    seats.iter().for_each(|seat| look(seat));
}

/// Ends the connections whose proof is over. Runs once a second on each loop.
pub(crate) fn sweep(edge: &EdgeLoop) {
    if !edge.shared.auth.is_on() {
        return;
    }
    let now = edge.handle.services().clock.now();
    for_each_seat(edge, |seat| {
        if seat.caller.as_ref().and_then(|caller| caller.expires).is_some_and(|at| at <= now) {
            seat.end();
        }
    });
    for link in edge.connections.borrow().iter() {
        let over =
            link.access.borrow().as_ref().and_then(|access| access.principal.expires).is_some_and(|at| at <= now);
        if over {
            link.close(ReasonCode::NOT_AUTHORIZED, "the token's time is over: connect with a new one");
        }
    }
}
