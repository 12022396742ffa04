//! A loop's end of a bridge: its readings wait here until the loop has room, and are submitted in the order in which they came.
//!
//! One task a bridge and loop, on the loop's thread. While it waits the bridge's messages stay unacknowledged, and at
//! `in_flight` of them the broker's socket is not read.

use std::{rc::Rc, task::Poll};

use tidegate_actors::{
    ids::DeviceId,
    ledger::RejectReason,
    reading::AckLevel,
    submission::{Answer, Submission},
};
use tokio::sync::mpsc;

use super::flow::{Arrival, What};
use crate::edge::EdgeLoop;

/// Submits what arrives of one bridge, for as long as the bridge lives.
pub(crate) async fn land(edge: Rc<EdgeLoop>, bridge: usize, mut arrivals: mpsc::Receiver<Arrival>) {
    while let Some(Arrival { token, what }) = arrivals.recv().await {
        match what {
            What::Reading(reading) => {
                room(&edge, &reading.device).await;
                let ack = Some(edge.ack_to_bridge(bridge, token));
                edge.handle.submit(Submission { reading, level: AckLevel::Committed, ack });
            }
            What::Refused(reason, device) => {
                count(&edge, reason, device.as_ref());
                edge.shared.bridges.answer(bridge, token, Answer::Committed);
            }
        }
    }
}

fn count(edge: &EdgeLoop, reason: RejectReason, device: Option<&DeviceId>) {
    edge.handle.reject(reason, device.map(DeviceId::as_str));
}

/// Waits as a connection of the device would: its socket is not read at a limit.
async fn room(edge: &EdgeLoop, device: &DeviceId) {
    std::future::poll_fn(|task| {
        if edge.handle.is_pressed() || edge.handle.is_device_pressed(device) {
            edge.handle.pause(task.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
