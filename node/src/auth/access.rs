//! What one connection may do, decided once and remembered: a device's own topics by comparing a prefix, everything else by
//! rules whose answers are kept for a bounded number of topics.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use hashbrown::HashMap;
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    acl::{Action, Denial, Rules},
    filter,
    principal::{Principal, Role},
};

/// Topics that every device has of its own, whatever its id.
pub(crate) const ME: &str = "v1/devices/me/";

/// What a subscription gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Everything that matches.
    Free,
    /// What may be read of it: each message is checked.
    Checked,
    /// Nothing.
    Denied,
}

/// The access of one connection.
pub(crate) struct Access {
    pub(crate) principal: Arc<Principal>,
    /// The device that the connection speaks for.
    device: Option<DeviceId>,
    rules: Option<Arc<Rules>>,
    /// A filter of the client holds more than it may read, or was granted by other rules than these: every message is checked.
    checks_all: Cell<bool>,
    decided: RefCell<HashMap<(Action, Box<str>), bool>>,
}

impl Access {
    /// `rules`: those of the `acl_file` for this principal and client id.
    pub(super) fn new(principal: Arc<Principal>, client_id: &str, rules: &Rules) -> Self {
        let device = match principal.role {
            // Anonymous devices, and gateways for themselves, go by their client id.
            Role::Device if principal.is_anonymous() => DeviceId::new(client_id).ok(),
            Role::Gateway => DeviceId::new(client_id).ok(),
            Role::Device => principal.device.clone(),
            Role::Viewer | Role::Operator | Role::Admin => None,
        };
        let rules = match &principal.rules {
            Some(own) => (**own).clone().and(rules),
            None => rules.clone(),
        };
        Self {
            principal,
            device,
            rules: super::acl::shared(rules),
            checks_all: Cell::new(false),
            decided: RefCell::default(),
        }
    }

    /// From here on every message is checked.
    pub(crate) fn check_all(&self) {
        self.checks_all.set(true);
    }

    /// May a message of this topic, which a filter of the client matches, be delivered?
    #[inline]
    pub(crate) fn may_deliver(&self, topic: &str) -> bool {
        !self.checks_all.get() || self.may_receive(topic)
    }

    /// The device that the connection speaks for.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// May the client publish to this topic?
    #[inline]
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        match &self.rules {
            None => self.granted(Action::Write, topic),
            Some(rules) => self.decide(rules, Action::Write, topic),
        }
    }

    /// May the client get messages of this topic?
    #[inline]
    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        match &self.rules {
            None => self.granted(Action::Read, topic),
            Some(rules) => self.decide(rules, Action::Read, topic),
        }
    }

    /// What a subscription with this filter gets, shared or not.
    pub(crate) fn grant(&self, wanted: &str) -> Grant {
        let wanted = filter::unshared(wanted);
        let granted = self.grants(wanted);
        let Some(rules) = &self.rules else { return if granted { Grant::Free } else { Grant::Denied } };
        match rules.denial(wanted) {
            Denial::Whole => Grant::Denied,
            Denial::None if granted || rules.covers(wanted) => Grant::Free,
            Denial::Part if granted || rules.covers(wanted) => Grant::Checked,
            _ if filter::is_wild(wanted) && rules.meets(wanted) => Grant::Checked,
            _ => Grant::Denied,
        }
    }

    /// What the role grants of one topic.
    fn granted(&self, action: Action, topic: &str) -> bool {
        match self.principal.role {
            Role::Device => self.owns(topic),
            Role::Gateway => topic.starts_with("devices/") || topic.starts_with(ME) || topic.starts_with("v1/gateway/"),
            Role::Viewer => action == Action::Read,
            Role::Operator | Role::Admin => true,
        }
    }

    /// `devices/{id}`, what is below it, and what is below `v1/devices/me`. A filter without a wildcard before that is owned
    /// as its topics are.
    fn owns(&self, topic: &str) -> bool {
        let Some(device) = &self.device else { return false };
        match topic.strip_prefix("devices/") {
            Some(rest) => match rest.strip_prefix(device.as_str()) {
                Some(below) => below.is_empty() || below.starts_with('/'),
                None => false,
            },
            None => topic.starts_with(ME),
        }
    }

    /// Does the role grant reading everything that the filter matches? A device id holds no wildcard, so a filter that
    /// begins as its topics do reaches no others.
    fn grants(&self, wanted: &str) -> bool {
        match self.principal.role {
            Role::Device => self.owns(wanted),
            Role::Gateway => self.granted(Action::Read, wanted),
            Role::Viewer | Role::Operator | Role::Admin => true,
        }
    }

    fn decide(&self, rules: &Rules, action: Action, topic: &str) -> bool {
        let mut decided = self.decided.borrow_mut();
        if let Some(known) = decided.get(&Asked(action, topic)) {
            return *known;
        }
        let decision = rules.decide(action, topic).unwrap_or_else(|| self.granted(action, topic));
        if decided.len() >= limits::AUTH_DECISIONS {
            decided.clear();
        }
        decided.insert((action, topic.into()), decision);
        decision
    }
}

/// A decision to look for, without owning its topic; it hashes as the key does.
#[derive(Hash)]
struct Asked<'a>(Action, &'a str);

impl hashbrown::Equivalent<(Action, Box<str>)> for Asked<'_> {
    fn equivalent(&self, key: &(Action, Box<str>)) -> bool {
        self.0 == key.0 && self.1 == &*key.1
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{acl::Acl, principal::Proof},
        *,
    };

    fn principal(name: &str, role: Role) -> Arc<Principal> {
        let device = (role == Role::Device).then(|| DeviceId::new(name).unwrap());
        let proof = Proof::Password { stamp: 0 };
        Arc::new(Principal { name: name.into(), role, device, proof, expires: None, rules: None })
    }

    fn access(name: &str, role: Role, acl: &str) -> Access {
        let acl = Acl::parse(Path::new("acl"), acl).unwrap();
        Access::new(principal(name, role), "client", &acl.rules_of(Some(name), "client"))
    }

    #[test]
    fn a_device_has_its_own_topics_and_no_others() {
        let d1 = access("d1", Role::Device, "");
        for (topic, allowed) in [
            ("devices/d1/metrics", true),
            ("devices/d1", true),
            ("devices/d1/a/b", true),
            ("v1/devices/me/telemetry", true),
            ("devices/d11/metrics", false),
            ("devices/d2/metrics", false),
            ("devices/", false),
            ("Devices/d1/metrics", false),
            ("v1/devices/me", false),
            ("plant/1", false),
            ("$SYS/broker/uptime", false),
        ] {
            assert_eq!(d1.may_publish(topic), allowed, "{topic}");
            assert_eq!(d1.may_receive(topic), allowed, "{topic}");
        }
        for (filter, grant) in [
            ("devices/d1/#", Grant::Free),
            ("devices/d1/+/x", Grant::Free),
            ("$share/g/devices/d1/#", Grant::Free),
            ("v1/devices/me/rpc/request/+", Grant::Free),
            ("devices/+/state", Grant::Denied),
            ("devices/#", Grant::Denied),
            ("#", Grant::Denied),
            ("$share/devices/d1/devices/d2/#", Grant::Denied),
            ("devices/d1+/#", Grant::Denied),
        ] {
            assert_eq!(d1.grant(filter), grant, "{filter}");
        }
    }

    #[test]
    fn a_devices_own_topic_costs_next_to_nothing() {
        let (d1, ruled) =
            (access("thermostat-0001", Role::Device, ""), access("thermostat-0001", Role::Device, "pattern read x/%u"));
        let topic = "devices/thermostat-0001/metrics";
        for (what, access) in [("prefix", d1), ("rules, remembered", ruled)] {
            assert!(access.may_publish(topic));
            let start = std::time::Instant::now();
            let allowed =
                (0..100_000).filter(|_| std::hint::black_box(&access).may_publish(std::hint::black_box(topic))).count();
            let nanos = start.elapsed().as_nanos() / 100_000;
            println!("{what}: {nanos} ns");
            assert_eq!(allowed, 100_000);
            assert!(
                nanos < 2_000,
                "{what}: {nanos} ns: something is asked for each message that was to be decided once"
            );
        }
    }

    #[test]
    fn roles() {
        let topics = ["devices/d9/metrics", "plant/1", "$SYS/broker/uptime"];
        for (role, publishes, receives) in [
            (Role::Gateway, [true, false, false], [true, false, false]),
            (Role::Viewer, [false; 3], [true; 3]),
            (Role::Operator, [true; 3], [true; 3]),
        ] {
            let access = access("x", role, "");
            assert_eq!(topics.map(|topic| access.may_publish(topic)), publishes, "{role:?}");
            assert_eq!(topics.map(|topic| access.may_receive(topic)), receives, "{role:?}");
        }
        assert_eq!(access("x", Role::Gateway, "").grant("devices/+/state"), Grant::Free);
        assert_eq!(access("x", Role::Gateway, "").grant("#"), Grant::Denied);
        assert_eq!(access("x", Role::Viewer, "").grant("#"), Grant::Free);
    }

    #[test]
    fn rules_add_and_denials_win() {
        let acl = "user d1\ntopic read plant/+/info\ntopic deny devices/d1/secret\n";
        let d1 = access("d1", Role::Device, acl);
        for _ in 0..2 {
            assert!(d1.may_publish("devices/d1/metrics") && d1.may_receive("plant/7/info"));
            assert!(!d1.may_publish("plant/7/info") && !d1.may_publish("devices/d1/secret"));
        }
        assert_eq!(d1.grant("devices/d1/#"), Grant::Checked);
        assert_eq!(d1.grant("devices/d1/secret"), Grant::Denied);
        assert_eq!(d1.grant("plant/+/info"), Grant::Free);
        assert_eq!(d1.grant("plant/#"), Grant::Checked);
        assert_eq!(d1.grant("plant/7/other"), Grant::Denied);
        // The number of remembered answers is bounded.
        (0..10 * limits::AUTH_DECISIONS).for_each(|n| assert!(!d1.may_publish(&format!("x/{n}"))));
        assert!(d1.decided.borrow().len() <= limits::AUTH_DECISIONS);
    }
}
