//! How long covered segments are kept: by bytes, and by age.
//!
//! **Age never trusts the time of day.** A segment that this process closed is as old as the process has run since. For one
//! from an earlier run the files' times say how long after it the next one was closed, and each such step counts for at most
//! the time after which a segment is closed anyway: so a clock that jumped a year ahead, and came back or not, makes a
//! segment older by that step, never by a year. Time during which no node ran counts for at most one step, too.

use std::time::{Duration, Instant, SystemTime};

use super::segment::Segment;

/// A segment is closed after this part of the time for which it is kept, so that the time means something.
const STEPS: u32 = 8;

/// What is kept of the journal although a snapshot covers it. What is beyond either bound may be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Time since a segment was closed; `None`: no bound by age.
    pub age: Option<Duration>,
}

impl Retention {
    /// The age at which a segment is closed, however small it is.
    #[must_use]
    pub fn segment_age(&self) -> Option<Duration> {
        self.age.map(|age| age / STEPS)
    }

    /// What is older than half of the age is soon to be freed: time for a snapshot that covers it.
    #[must_use]
    pub fn half_age(&self) -> Option<Self> {
        self.age.map(|age| Self { bytes: u64::MAX, age: Some(age / 2) })
    }
}

/// A segment of the journal that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) segment: Segment,
    /// Since when it is closed, and how old it was then; `None`: it is written.
    closed: Option<(Instant, Duration)>,
}

impl Kept {
    /// A segment that is written from now on.
    pub(super) fn open(segment: Segment) -> Self {
        Self { segment, closed: None }
    }

    /// It is written no more.
    pub(super) fn close(&mut self) {
        self.closed.get_or_insert((Instant::now(), Duration::ZERO));
    }

    /// The segments of earlier runs. `step`: the time after which a segment is closed.
    pub(super) fn found(segments: Vec<Segment>, modified: &[SystemTime], step: Duration) -> Vec<Self> {
        let now = Instant::now();
        let aged = segments.into_iter().zip(ages(modified, step));
        aged.map(|(segment, age)| Self { segment, closed: Some((now, age)) }).collect()
    }

    fn is_older(&self, than: Duration) -> bool {
        self.closed.is_some_and(|(since, age)| since.elapsed().saturating_add(age) >= than)
    }
}

/// The first position after the segments that `retention` gives up, none of which reaches beyond `covered`.
pub(super) fn beyond(kept: &[Kept], retention: &Retention, covered: u64) -> Option<u64> {
    let mut bytes = kept.iter().map(|kept| kept.segment.bytes).sum::<u64>();
    let mut end = None;
    // Never the last one: it is written.
    for pair in kept.windows(2) {
        let next = pair[1].segment.first;
        let is_beyond = bytes > retention.bytes || retention.age.is_some_and(|age| pair[0].is_older(age));
        if next > covered.saturating_add(1) || !is_beyond {
            break;
        }
        bytes -= pair[0].segment.bytes;
        end = Some(next);
    }
    end
}

/// How old the files of an earlier run are at least, the last one being new: see the head of this file.
fn ages(modified: &[SystemTime], step: Duration) -> Vec<Duration> {
    let mut ages = vec![Duration::ZERO; modified.len()];
    for at in (1..modified.len()).rev() {
        let later = modified[at].duration_since(modified[at - 1]).unwrap_or_default();
        ages[at - 1] = ages[at].saturating_add(later.min(step));
    }
    ages
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * u32::try_from(hours).unwrap()
    }

    #[test]
    fn the_files_times_give_the_ages() {
        assert_eq!(ages(&[at(1_000), at(1_010), at(1_030)], 21 * HOUR), [30 * HOUR, 20 * HOUR, Duration::ZERO]);
        assert_eq!(ages(&[], HOUR), []);
    }

    #[test]
    fn a_clock_that_jumped_a_year_makes_nothing_a_year_old() {
        let year = 24 * 365;
        let ahead_and_back = [at(10_000), at(10_001 + year), at(10_002 + year), at(10_003), at(10_004)];
        assert_eq!(ages(&ahead_and_back, 21 * HOUR)[0], 23 * HOUR);
        let back_and_ahead = [at(10_000), at(10_001 - year), at(10_002 - year), at(10_003), at(10_004)];
        assert_eq!(ages(&back_and_ahead, 21 * HOUR)[0], 23 * HOUR);
        assert_eq!(ages(&[at(10_000), at(10_000 + year)], 21 * HOUR)[0], 21 * HOUR, "a node that did not run");
    }

    fn kept(ages: &[u64]) -> Vec<Kept> {
        let now = Instant::now();
        let segment = |at: usize| Segment { first: at as u64 * 10 + 1, path: PathBuf::new(), bytes: 100 };
        let closed = ages.iter().enumerate().map(|(at, hours)| Kept {
            segment: segment(at),
            closed: Some((now, HOUR * u32::try_from(*hours).unwrap())),
        });
        closed.chain([Kept::open(segment(ages.len()))]).collect()
    }

    #[test]
    fn what_is_beyond_the_bytes_or_the_hours_and_covered_is_given_up() {
        let kept = kept(&[40, 30, 20, 10]);
        let check = |bytes, hours: Option<u32>, covered, expected| {
            let retention = Retention { bytes, age: hours.map(|hours| HOUR * hours) };
            assert_eq!(beyond(&kept, &retention, covered), expected, "{bytes} {hours:?} {covered}");
        };
        check(u64::MAX, None, u64::MAX, None);
        check(500, None, u64::MAX, None);
        check(499, None, u64::MAX, Some(11));
        check(300, None, u64::MAX, Some(21));
        check(0, None, u64::MAX, Some(41));
        check(0, None, 19, Some(11));
        check(0, None, 9, None);
        check(u64::MAX, Some(41), u64::MAX, None);
        check(u64::MAX, Some(30), u64::MAX, Some(21));
        check(u64::MAX, Some(1), u64::MAX, Some(41));
        check(u64::MAX, Some(1), 25, Some(21));
        check(450, Some(25), u64::MAX, Some(21));
    }
}
