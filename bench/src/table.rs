//! The figures of all rounds, their medians, and the table that is made of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::{Value, json};

use crate::meter::{Measure, Sample};
use crate::plan::{Goal, Scenario};
use crate::server::Peer;

/// The figures of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    scenario: Scenario,
    samples: BTreeMap<Peer, Vec<Sample>>,
    failures: BTreeMap<Peer, String>,
}

/// The median and the extremes of what the rounds gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = *self;
        if min >= max {
            return f.write_str(&number(median));
        }
        write!(f, "{} ({}–{})", number(median), number(min), number(max))
    }
}

impl Block {
    /// A scenario without figures.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { scenario: scenario.clone(), samples: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, peer: Peer, sample: Sample) {
        self.samples.entry(peer).or_default().push(sample);
    }

    /// Notes that `peer` failed.
    pub(crate) fn fail(&mut self, peer: Peer, error: &anyhow::Error) {
        self.failures.insert(peer, format!("{error:#}"));
    }

    /// Who failed, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(peer, error)| format!("{}, {}: {error}", self.scenario.name, peer.name()))
    }

    /// The figures of all rounds; none of a server that failed in any of them.
    fn values(&self, peer: Peer, measure: Measure) -> Vec<f64> {
        if self.failures.contains_key(&peer) {
            return Vec::new();
        }
        let samples = self.samples.get(&peer).map(Vec::as_slice).unwrap_or_default();
        samples.iter().filter_map(|sample| sample.get(&measure).copied()).collect()
    }

    fn figure(&self, peer: Peer, measure: Measure) -> Option<Spread> {
        spread(self.values(peer, measure))
    }

    /// Tidegate's figure over the peer's, round by round.
    fn ratio(&self, peer: Peer, measure: Measure) -> Option<Spread> {
        let (ours, theirs) = (self.values(Peer::Tidegate, measure), self.values(peer, measure));
        spread(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).filter(|ratio| ratio.is_finite()).collect())
    }

    fn goal(&self, peer: Peer, measure: Measure) -> Option<(f64, Option<f64>)> {
        self.scenario.goals.iter().find_map(|goal| match *goal {
            Goal::Ratio(of, against, limit) if of == measure && against == peer => {
                Some((limit, self.ratio(peer, measure).map(|ratio| ratio.median)))
            }
            Goal::AtMost(of, limit) if of == measure => {
                Some((limit, self.figure(Peer::Tidegate, measure).map(|figure| figure.median)))
            }
            _ => None,
        })
    }

    fn rows(&self, out: &mut String) {
        // The title stands in the first row only.
        let mut title = self.scenario.title.as_str();
        for &peer in self.scenario.against {
            for &measure in self.scenario.measures {
                let cell = |who| match self.figure(who, measure) {
                    Some(spread) => number(spread.median),
                    None if self.failures.contains_key(&who) => "failed".to_owned(),
                    None => "–".to_owned(),
                };
                let ratio = match self.ratio(peer, measure) {
                    Some(ratio) => format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max),
                    None => "–".to_owned(),
                };
                let goal = match self.goal(peer, measure) {
                    Some((limit, Some(value))) if value <= limit => format!("≤ {} met", number(limit)),
                    Some((limit, Some(_))) => format!("≤ {} MISSED", number(limit)),
                    Some((limit, None)) => format!("≤ {}", number(limit)),
                    None => String::new(),
                };
                let (ours, theirs, peer) = (cell(Peer::Tidegate), cell(peer), peer.name());
                let _ = writeln!(out, "| {title} | {measure} | {ours} | {theirs} ({peer}) | {ratio} | {goal} |");
                title = "";
            }
        }
    }

    fn json(&self) -> Value {
        let peers: BTreeMap<String, Value> = self
            .samples
            .iter()
            .map(|(&peer, rounds)| {
                let medians = per_measure(rounds, |measure| self.figure(peer, measure));
                let ratios = if peer == Peer::Tidegate {
                    BTreeMap::new()
                } else {
                    per_measure(rounds, |measure| self.ratio(peer, measure))
                };
                (key(peer), json!({ "figures": medians, "tidegateOverThis": ratios, "rounds": rounds }))
            })
            .collect();
        let failures: BTreeMap<String, &String> =
            self.failures.iter().map(|(&peer, error)| (key(peer), error)).collect();
        json!({ "name": self.scenario.name, "title": self.scenario.title, "peers": peers, "failures": failures })
    }
}

/// The table in Markdown.
pub(crate) fn markdown(blocks: &[Block]) -> String {
    let mut out = String::from(
        "| scenario | figure | Tidegate | peer | Tidegate ÷ peer (min–max) | goal |\n|---|---|---:|---:|---:|---|\n",
    );
    for block in blocks {
        block.rows(&mut out);
    }
    out
}

/// Everything that was measured, for a program to read.
pub(crate) fn json(blocks: &[Block], about: &Value) -> Value {
    json!({ "about": about, "scenarios": blocks.iter().map(Block::json).collect::<Vec<_>>() })
}

fn per_measure(rounds: &[Sample], figure: impl Fn(Measure) -> Option<Spread>) -> BTreeMap<Measure, Spread> {
    let measures = rounds.first().into_iter().flat_map(BTreeMap::keys);
    measures.filter_map(|&measure| Some((measure, figure(measure)?))).collect()
}

fn key(peer: Peer) -> String {
    clap::ValueEnum::to_possible_value(&peer).map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The median and the extremes of some values; `None` of none.
pub(crate) fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (&min, &max) = (values.first()?, values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some(Spread { median, min, max })
}

/// A goal, and whether it was met.
pub(crate) fn judged(met: bool, goal: &str) -> String {
    format!("{goal} {}", if met { "met" } else { "MISSED" })
}

/// Three digits are as many as a noisy machine gives.
pub(crate) fn number(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let spread = spread(vec![4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_goals_are_judged() {
        let scenario = plan::scenarios(true).into_iter().next().expect("a scenario");
        let mut block = Block::new(&scenario);
        for (ours, theirs) in [(10.0, 10.0), (30.0, 20.0), (12.0, 10.0)] {
            block.add(Peer::Tidegate, Sample::from([(Measure::CpuPerMessageUs, ours)]));
            block.add(Peer::Mosquitto, Sample::from([(Measure::CpuPerMessageUs, theirs)]));
        }
        let text = markdown(&[block]);
        assert!(text.contains("| 12.0 | 10.0 (mosquitto) | 1.20 (1.00–1.50) | ≤ 1.00 MISSED |"), "{text}");
    }

    #[test]
    fn a_failure_is_a_word_and_not_a_figure() {
        let scenario = plan::scenarios(true).into_iter().next().expect("a scenario");
        let mut block = Block::new(&scenario);
        block.add(Peer::Tidegate, Sample::from([(Measure::CpuPerMessageUs, 1.0)]));
        block.fail(Peer::Tidegate, &anyhow::anyhow!("it fell over"));
        assert!(markdown(std::slice::from_ref(&block)).contains("| failed |"));
        assert_eq!(block.failures().count(), 1);
    }
}
