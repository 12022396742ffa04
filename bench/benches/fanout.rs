//! What one update costs a loop that some viewers watch: into every mailbox, and out again as their connections do.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate_actors::{
    clock::Uptime,
    fanout::{Filter, Update, Viewer, ViewerLimits, Watchers},
};

mod setup;

fn main() {
    let mut criterion = setup::criterion();
    publish(&mut criterion);
    criterion.final_summary();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout");
    for (kind, conflate) in [("device", false), ("fleet", true)] {
        for count in [1, 100, 1_000] {
            let device = setup::device(1);
            let filter = if conflate {
                Filter { fleet: true, ..Filter::default() }
            } else {
                Filter { devices: vec![device.clone()], ..Filter::default() }
            };
            let viewers: Vec<_> =
                (0..count).map(|_| Viewer::new(ViewerLimits::default(), conflate, 0, Uptime::default())).collect();
            let mut watchers = Watchers::default();
            for viewer in &viewers {
                watchers.add(viewer, &filter, |_| true);
            }
            let update = Update::new(device, 1, &setup::payload(1, 1));
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| {
                    assert_eq!(watchers.publish(black_box(&update), Uptime::default()), count);
                    for viewer in &viewers {
                        assert_eq!(black_box(viewer.take(64 * 1024, Uptime::default())).updates.len(), 1);
                    }
                });
            });
        }
    }
    group.finish();
}
