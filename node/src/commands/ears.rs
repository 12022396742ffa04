//! Which subscriptions of a device's own session take commands.

use tidegate_actors::ids::DeviceId;

use super::queue::Listening;
use crate::mqtt::packet::QoS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Native,
    ThingsBoard,
}

impl Listening {
    /// Can a subscription to this filter take commands to the device?
    pub(crate) fn concerns(device: &DeviceId, filter: &str) -> bool {
        shape_of(device.as_str(), filter).is_some()
    }

    /// What a session with these subscriptions takes.
    pub(crate) fn of<'a>(device: &DeviceId, subscriptions: impl IntoIterator<Item = (&'a str, QoS)>) -> Self {
        let mut listening = Self::default();
        for (filter, qos) in subscriptions {
            let best = match shape_of(device.as_str(), filter) {
                Some(Shape::Native) => &mut listening.native,
                Some(Shape::ThingsBoard) => &mut listening.rpc,
                None => continue,
            };
            *best = (*best).max(Some(qos));
        }
        listening
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
    fn of_several_subscriptions_the_best_counts() {
        let device = DeviceId::new("d1").unwrap();
        let filters = [
            ("plant/#", QoS::ExactlyOnce),
            ("devices/d1/commands/+", QoS::AtLeastOnce),
            ("devices/d1/#", QoS::AtMostOnce),
            ("v1/devices/me/rpc/request/+", QoS::AtMostOnce),
        ];
        let both = Listening { native: Some(QoS::AtLeastOnce), rpc: Some(QoS::AtMostOnce) };
        assert_eq!(Listening::of(&device, filters), both);
        assert_eq!(Listening::of(&device, filters[..1].iter().copied()), Listening::default());
    }
}
