//! What the MQTT door asks: may this CONNECT come in, may this client take over, and what is said where something is denied.

use std::{net::SocketAddr, num::NonZeroU16, sync::Arc, time::Instant};

use super::{
    Access,
    access::ME,
    audit::Event,
    directory::Standing,
    gate::{Counters, Credential, Denied, Door},
    principal::{Principal, Role},
};
use crate::{
    edge::EdgeLoop,
    mqtt::{
        connections::Link,
        packet::{Connect, Version},
        reason::ReasonCode,
    },
    transport::identity::TlsIdentity,
};

/// A refusal of a CONNECT: its code and its words.
pub(crate) type Refusal = (ReasonCode, String);

/// Who this CONNECT is of; `None`: the node asks nobody. Runs on the loop that accepted it; hashes run elsewhere.
///
/// # Errors
/// The refusal to answer with.
pub(crate) async fn admit(
    edge: &EdgeLoop,
    connect: &Connect,
    from: SocketAddr,
    identity: Option<&TlsIdentity>,
) -> Result<Option<Arc<Principal>>, Refusal> {
    let auth = &edge.shared.auth;
    if !auth.is_on() {
        return Ok(None);
    }
    let services = edge.handle.services();
    let credential = credential(connect, identity);
    let principal = auth.identify(&services.pool, Door::Mqtt, from, credential, services.clock.now()).await;
    let principal = principal.map_err(refusal)?;
    if let Some(rest) = auth.bans.of_client(&principal.name, &connect.client_id, Instant::now()) {
        let seconds = rest.as_secs() + 1;
        let text =
            format!("the client came and went too often: try again in {seconds} s (limit auth.bans.disconnects)");
        return Err((ReasonCode::BANNED, text));
    }
    Ok(Some(Arc::new(principal)))
}

/// A user name without a password is a token, as ThingsBoard's devices send it.
fn credential<'a>(connect: &'a Connect, identity: Option<&TlsIdentity>) -> Credential<'a> {
    // The client id is one of the certificate's names: the listener has seen to that.
    if identity.is_some_and(|identity| identity.device_ids.is_some()) {
        return Credential::Certificate(&connect.client_id);
    }
    let user = connect.username.as_deref().filter(|user| !user.is_empty());
    let password = connect.password.as_deref().filter(|password| !password.is_empty());
    match (user, password) {
        (Some(user), Some(password)) => Credential::Password { user, password },
        (Some(token), None) => Credential::Bearer(token),
        (None, Some(password)) => match std::str::from_utf8(password) {
            Ok(token) => Credential::Bearer(token),
            // No token, and not nothing either.
            Err(_) => Credential::Password { user: "", password },
        },
        (None, None) => Credential::Nothing,
    }
}

fn refusal(denied: Denied) -> Refusal {
    match denied {
        Denied::Wrong => (ReasonCode::BAD_USER_NAME_OR_PASSWORD, "wrong user name, password or token".to_owned()),
        Denied::Missing => {
            let text = "this node lets nobody in without a user name and password, or a token as user name";
            (ReasonCode::NOT_AUTHORIZED, text.to_owned())
        }
        Denied::Banned(rest) => {
            let seconds = rest.as_secs() + 1;
            let text = format!(
                "too many wrong credentials from this address: try again in {seconds} s (limit auth.bans.wrong_passwords)"
            );
            (ReasonCode::BANNED, text)
        }
        Denied::Busy => (ReasonCode::SERVER_BUSY, denied.words().to_owned()),
    }
}

/// The last look before a connection begins, on the loop that owns its client id: is the principal still what it was when it
/// was accepted elsewhere, and is the client id its own? Gives back what the connection may do; `None`: everything.
///
/// `owner` is the principal's name of the session that is there under this client id, if there is one.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn begin(
    edge: &EdgeLoop,
    connect: &Connect,
    principal: Option<&Arc<Principal>>,
    owner: Option<&str>,
) -> Result<Option<Access>, Refusal> {
    let auth = &edge.shared.auth;
    let Some(principal) = principal else {
        // Authentication was switched on while the connection was on its way.
        return if auth.is_on() { Err(refusal(Denied::Missing)) } else { Ok(None) };
    };
    if auth.standing(principal, edge.handle.services().clock.now()) != Standing::Same {
        return Err(refusal(Denied::Wrong));
    }
    let client_id = &*connect.client_id;
    let whose = owner.map(str::to_owned).or_else(|| auth.owner_of(client_id));
    if whose.is_some_and(|whose| *whose != *principal.name) && principal.role != Role::Admin {
        let text = format!("the client id {client_id:.64?} belongs to another user; a takeover needs the same user");
        deny(edge, principal, "connect", client_id);
        return Err((ReasonCode::NOT_AUTHORIZED, text));
    }
    let access = auth.access(Arc::clone(principal), client_id);
    if owner.is_some() {
        // It may find subscriptions that were granted by other rules.
        access.check_all();
    }
    if let Some(will) = &connect.will
        && !access.may_publish(&will.topic)
    {
        deny(edge, principal, "will", &will.topic);
        return Err((
            ReasonCode::NOT_AUTHORIZED,
            "the will's topic is not one that this user may publish to".to_owned(),
        ));
    }
    Ok(Some(access))
}

/// Is a message for the node alone? What is below `v1/devices/me` means another device for each client: with authentication on, no
/// client gets what another published there.
pub(crate) fn is_for_the_node(link: &Link, topic: &str) -> bool {
    topic.starts_with(ME) && link.access.borrow().is_some()
}

/// A PUBLISH that the client may not send: counted, said, answered. MQTT 3.1.1 has no word for it: acknowledged, or the client would
/// send it for ever. Gives back the code to answer with, at QoS 1 and 2.
pub(crate) fn publish_denied(edge: &EdgeLoop, link: &Link, topic: &str) -> ReasonCode {
    Counters::add(&edge.shared.auth.counters.publishes_denied);
    if let Some(access) = &*link.access.borrow() {
        deny(edge, &access.principal, "publish", topic);
    }
    if link.peer.version == Version::V5 { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SUCCESS }
}

/// As [`publish_denied`] at QoS 0 and 1: the whole answer.
pub(crate) fn answer_denied(edge: &EdgeLoop, link: &Link, packet_id: Option<NonZeroU16>, topic: &str) {
    let code = publish_denied(edge, link, topic);
    link.answer(packet_id, code, "not one of the topics that this user may publish to");
}

/// A subscription that the client may not have.
pub(crate) fn subscription_denied(edge: &EdgeLoop, link: &Link, filter: &str) -> ReasonCode {
    Counters::add(&edge.shared.auth.counters.subscriptions_denied);
    if let Some(access) = &*link.access.borrow() {
        deny(edge, &access.principal, "subscribe", filter);
    }
    ReasonCode::NOT_AUTHORIZED
}

/// A message that a subscription matched and the client may not read.
pub(crate) fn delivery_denied(edge: &EdgeLoop) {
    Counters::add(&edge.shared.auth.counters.deliveries_denied);
}

/// A connection is over without a goodbye.
pub(crate) fn lost(edge: &EdgeLoop, link: &Link) {
    let access = link.access.borrow();
    let Some(access) = &*access else { return };
    if edge.shared.auth.bans.lost(&access.principal.name, &link.client_id, Instant::now()) {
        let client = &*link.client_id;
        tracing::warn!(client, "banned a client that comes and goes (limit auth.bans.disconnects)");
        let event =
            Event { action: "ban", result: "ok", principal: access.principal.shown(), address: "", detail: client };
        edge.shared.auth.audit.note(&event, edge.handle.services().clock.now());
    }
}

fn deny(edge: &EdgeLoop, principal: &Principal, action: &str, detail: &str) {
    tracing::debug!(user = principal.shown(), action, detail, "denied");
    let event = Event { action, result: "denied", principal: principal.shown(), address: "", detail };
    edge.shared.auth.audit.note_often(&event, edge.handle.services().clock.now());
}
