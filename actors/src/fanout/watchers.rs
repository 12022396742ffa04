//! Who watches the devices of one loop.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::{
    clock::Uptime,
    fanout::{Filter, Update, Viewer},
    ids::DeviceId,
};

/// The viewers that watch devices of this loop, indexed by what they watch.
#[derive(Debug, Default)]
pub struct Watchers {
    by_device: HashMap<DeviceId, Vec<Arc<Viewer>>>,
    by_prefix: Vec<(Box<str>, Arc<Viewer>)>,
    fleet: Vec<Arc<Viewer>>,
}

impl Watchers {
    /// Adds a viewer. `mine` tells which of the filter's single devices this loop owns.
    pub fn add(&mut self, viewer: &Arc<Viewer>, filter: &Filter, mine: impl Fn(&DeviceId) -> bool) {
        if filter.fleet {
            self.fleet.push(Arc::clone(viewer));
            return;
        }
        for device in filter.devices.iter().filter(|device| mine(device)) {
            self.by_device.entry(device.clone()).or_default().push(Arc::clone(viewer));
        }
        for prefix in &filter.prefixes {
            self.by_prefix.push((prefix.clone(), Arc::clone(viewer)));
        }
    }

    /// Forgets viewers that were closed.
    pub fn sweep(&mut self) {
        self.fleet.retain(|viewer| !viewer.is_closed());
        self.by_prefix.retain(|(_, viewer)| !viewer.is_closed());
        self.by_device.retain(|_, viewers| {
            viewers.retain(|viewer| !viewer.is_closed());
            !viewers.is_empty()
        });
    }

    /// Does anybody watch this device?
    #[must_use]
    pub fn watched(&self, device: &DeviceId) -> bool {
        !self.fleet.is_empty()
            || (!self.by_device.is_empty() && self.by_device.contains_key(device))
            || self.by_prefix.iter().any(|(prefix, _)| device.as_str().starts_with(&**prefix))
    }

    /// Offers an update to everybody who watches its device. Returns how many took it.
    pub fn publish(&mut self, update: &Update, now: Uptime) -> usize {
        let mut taken = 0;
        let mut offer = |viewer: &Arc<Viewer>| {
            let open = viewer.offer(update, now);
            taken += usize::from(open);
            open
        };
        self.fleet.retain(&mut offer);
        if !self.by_prefix.is_empty() {
            self.by_prefix.retain(|(prefix, viewer)| !update.device.as_str().starts_with(&**prefix) || offer(viewer));
        }
        if let Some(viewers) = self.by_device.get_mut(&update.device) {
            viewers.retain(&mut offer);
            if viewers.is_empty() {
                self.by_device.remove(&update.device);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::ViewerLimits;

    const BEGIN: Uptime = Uptime(0);

    #[test]
    fn an_update_reaches_those_who_watch_and_nobody_else() {
        let id = |text: &str| DeviceId::new(text).unwrap();
        let [fleet, pumps, one] =
            [true, false, false].map(|conflate| Viewer::new(ViewerLimits::default(), conflate, 0, BEGIN));
        let mut watchers = Watchers::default();
        watchers.add(&fleet, &Filter { fleet: true, ..Filter::default() }, |_| true);
        watchers.add(&pumps, &Filter { prefixes: vec!["pump-".into()], ..Filter::default() }, |_| true);
        watchers.add(&one, &Filter { devices: vec![id("d1")], ..Filter::default() }, |_| true);

        assert_eq!(watchers.publish(&Update::new(id("d1"), 1, b"{}"), BEGIN), 2);
        assert_eq!(watchers.publish(&Update::new(id("pump-1"), 1, b"{}"), BEGIN), 2);
        assert_eq!(watchers.publish(&Update::new(id("other"), 1, b"{}"), BEGIN), 1);
        fleet.close();
        one.close();
        watchers.sweep();
        assert_eq!(watchers.publish(&Update::new(id("d1"), 2, b"{}"), BEGIN), 0);
        assert!(!watchers.watched(&id("d1")));
        assert!(watchers.watched(&id("pump-9")));
    }
}
