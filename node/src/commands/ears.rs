//! Which of a session's subscriptions take commands. Most sessions have none, and pay eight bytes.

use tidegate_actors::ids::DeviceId;

use super::queue::Listening;
use crate::mqtt::packet::QoS;

/// The subscriptions of a device's own session that can match a command to it.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    #[expect(clippy::box_collection, reason = "a session without pays 8 bytes, not 24")]
    filters: Option<Box<Vec<Ear>>>,
}

/// A filter, the quality of service that was granted, and what it is about.
type Ear = (Box<str>, QoS, Shape);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Native,
    ThingsBoard,
}

impl Ears {
    /// The session has subscribed. Returns whether that is about commands.
    pub(crate) fn subscribed(&mut self, device: &DeviceId, filter: &str, qos: QoS) -> bool {
        let Some(shape) = shape_of(device.as_str(), filter) else { return false };
        let filters = self.filters.get_or_insert_default();
        match filters.iter_mut().find(|(known, ..)| **known == *filter) {
            Some((_, granted, _)) => *granted = qos,
            None => filters.push((filter.into(), qos, shape)),
        }
        true
    }

    /// The session has unsubscribed. Returns whether that is about commands.
    pub(crate) fn unsubscribed(&mut self, filter: &str) -> bool {
        let Some(filters) = &mut self.filters else { return false };
        let before = filters.len();
        filters.retain(|(known, ..)| **known != *filter);
        let changed = filters.len() < before;
        if filters.is_empty() {
            self.filters = None;
        }
        changed
    }

    /// Does it hear anything?
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_none()
    }

    /// On which topics the device takes commands.
    pub(crate) fn listening(&self) -> Listening {
        let best = |wanted: Shape| {
            let filters = self.filters.iter().flat_map(|filters| filters.iter());
            filters.filter(|(_, _, shape)| *shape == wanted).map(|(_, qos, _)| *qos).max()
        };
        Listening { native: best(Shape::Native), rpc: best(Shape::ThingsBoard) }
    }
}

/// The commands that a filter matches. (A shared subscription is not the device's own.)
fn shape_of(device: &str, filter: &str) -> Option<Shape> {
    let mut levels = filter.split('/');
    let first = levels.next()?;
    match first {
        "#" => return Some(Shape::Native),
        "devices" | "+" if matches_rest(levels.clone(), &[device, "commands"]) => return Some(Shape::Native),
        "v1" | "+" => {}
        _ => return None,
    }
    // A filter that is not meant for it matches ThingsBoard's topics, too: `#` has made the device Tidegate's above.
    matches_rest(levels, &["devices", "me", "rpc", "request"]).then_some(Shape::ThingsBoard)
}

/// Do the levels match `fixed` and one more level, the request's?
fn matches_rest<'a>(mut levels: impl Iterator<Item = &'a str>, fixed: &[&str]) -> bool {
    for level in fixed {
        match levels.next() {
            Some("#") => return true,
            Some("+") => {}
            Some(wanted) if wanted == *level => {}
            _ => return false,
        }
    }
    // A request is named by its message: who subscribes to a single one cannot mean it.
    match levels.next() {
        Some("#") => true,
        Some("+") => levels.next().is_none_or(|last| last == "#"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_apart() {
        for (filter, shape) in [
            ("devices/d1/commands/+", Some(Shape::Native)),
            ("devices/d1/commands/#", Some(Shape::Native)),
            ("devices/d1/commands/+/#", Some(Shape::Native)),
            ("devices/d1/#", Some(Shape::Native)),
            ("devices/+/commands/+", Some(Shape::Native)),
            ("#", Some(Shape::Native)),
            ("+/#", Some(Shape::Native)),
            ("v1/devices/me/rpc/request/+", Some(Shape::ThingsBoard)),
            ("v1/devices/me/#", Some(Shape::ThingsBoard)),
            ("devices/d2/commands/+", None),
            ("devices/d1/commands", None),
            ("devices/d1/commands/0001", None),
            ("devices/d1/commands/+/reply", None),
            ("devices/d1/shadow/#", None),
            ("v1/devices/me/attributes", None),
            ("v1/devices/me/telemetry", None),
            ("$share/g/devices/d1/commands/+", None),
            ("plant/#", None),
        ] {
            assert_eq!(shape_of("d1", filter), shape, "{filter}");
        }
    }

    #[test]
    fn a_subscription_counts_until_the_last_that_matches_is_gone() {
        let device = DeviceId::new("d1").unwrap();
        let mut ears = Ears::default();
        assert!(!ears.subscribed(&device, "plant/#", QoS::AtLeastOnce) && ears.is_empty());
        assert!(ears.subscribed(&device, "devices/d1/commands/+", QoS::AtLeastOnce));
        assert!(ears.subscribed(&device, "devices/d1/#", QoS::AtMostOnce));
        assert!(ears.subscribed(&device, "v1/devices/me/rpc/request/+", QoS::AtMostOnce));
        let both = Listening { native: Some(QoS::AtLeastOnce), rpc: Some(QoS::AtMostOnce) };
        assert_eq!(ears.listening(), both);
        assert!(ears.unsubscribed("devices/d1/commands/+"));
        assert_eq!(ears.listening().native, Some(QoS::AtMostOnce));
        assert!(!ears.unsubscribed("plant/#"));
        assert!(ears.unsubscribed("devices/d1/#") && ears.unsubscribed("v1/devices/me/rpc/request/+"));
        assert!(ears.is_empty() && ears.listening() == Listening::default());
    }
}
