//! A loop that is woken thousands of times a second sleeps a little longer, and finds at once what came meanwhile.
//!
//! A wake-up costs the loop's thread more than the reading that it brings: two switches of the kernel and a turn of the scheduler. Network
//! cards answer the same question with interrupt coalescing. So does this: the loops wake up together at common ticks, and one commit serves
//! them all. Who waits for each answer, or sends little, is not held up ([`Company`]); an answer of the journal ends a wait.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{company::Company, inbox::Nap, limits};

thread_local! {
    static ARRIVED: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
    static GATHERING: RefCell<Gathering> = RefCell::new(Gathering::default());
}

/// What one loop's thread knows of its last wake-ups.
#[derive(Default)]
struct Gathering {
    company: Option<Company>,
    nap: Option<Arc<Nap>>,
    woken: Option<Instant>,
    /// How long the loop waited before it was woken last.
    waited: Option<Duration>,
}

/// Something came in for this thread's loop: what a socket had, or a reading from another loop.
pub fn arrived(count: usize) {
    ARRIVED.set(ARRIVED.get() + count);
}

/// Somebody asked this thread's loop for something and may ask again only when he has the answer: for a while it waits for nobody.
pub fn asked() {
    ASKED.set(Some(Instant::now()));
}

/// This thread's loop is called like this when an answer is there.
pub(crate) fn called_by(nap: Arc<Nap>) {
    GATHERING.with_borrow_mut(|gathering| gathering.nap = Some(nap));
}

/// The loop has nothing to do, and its thread goes to sleep. Waits for company first, at most for `longest`.
pub(crate) fn before_sleep(longest: Duration) {
    GATHERING.with_borrow_mut(|gathering| {
        let Gathering { company, nap: Some(nap), woken, waited } = gathering else { return };
        let company = company.get_or_insert_with(|| Company::new(longest, Duration::ZERO, limits::GATHER_WORTH));
        let came = ARRIVED.take();
        // A timer or an answer of the journal that woke the loop says nothing about what comes in.
        if came > 0 || waited.is_some() {
            company.begins(woken.unwrap_or_else(Instant::now), came, waited.take().map(|wait| (wait, came)));
        }
        let now = Instant::now();
        if ASKED.get().is_some_and(|asked| now.saturating_duration_since(asked) < longest) {
            return;
        }
        if let Some(wait) = company.wait(now) {
            nap.sleep_until(now + wait);
            *waited = Some(now.elapsed());
        }
    });
}

/// The loop's thread was woken.
pub(crate) fn after_sleep() {
    GATHERING.with_borrow_mut(|gathering| gathering.woken = Some(Instant::now()));
}
