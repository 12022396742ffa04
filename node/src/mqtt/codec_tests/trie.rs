//! The subscription trie against a list and the plain `matches`.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};

use crate::mqtt::{
    filters::FilterTrie,
    topic::{check_filter, check_topic_name, matches},
};

/// Few levels, so that filters and topics meet.
fn levels() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "", "$x", "ä", "+"])
}

fn filter() -> impl Strategy<Value = String> {
    (vec(levels(), 1..6), any::<bool>()).prop_filter_map("not a filter", |(levels, hash)| {
        let filter = levels.join("/") + if hash { "/#" } else { "" };
        let filter = if filter == "a/#" { "#".to_owned() } else { filter };
        check_filter(&filter).ok().map(|_| filter.clone())
    })
}

fn topic() -> impl Strategy<Value = String> {
    vec(levels(), 1..6).prop_filter_map("not a topic", |levels| {
        let topic = levels.join("/");
        check_topic_name(&topic).ok().map(|()| topic.clone())
    })
}

#[derive(Debug, Clone)]
enum Step {
    Insert(String, u8, u16),
    Remove(String, u8),
    Match(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (filter(), 0..4_u8, any::<u16>()).prop_map(|(filter, key, value)| Step::Insert(filter, key, value)),
        2 => (filter(), 0..4_u8).prop_map(|(filter, key)| Step::Remove(filter, key)),
        2 => topic().prop_map(Step::Match),
    ]
}

fn found(trie: &FilterTrie<u8, u16>, topic: &str) -> Vec<(u8, u16)> {
    let mut found = Vec::new();
    trie.for_each_match(topic, |&key, &value| found.push((key, value)));
    found.sort_unstable();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_trie_finds_what_a_list_finds_and_is_empty_when_all_is_removed(steps in vec(step(), 1..60)) {
        let mut trie = FilterTrie::new();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(filter, key, value) => {
                    prop_assert_eq!(trie.insert(&filter, key, value), model.insert((filter, key), value));
                }
                Step::Remove(filter, key) => {
                    prop_assert_eq!(trie.remove(&filter, &key), model.remove(&(filter, key)));
                }
                Step::Match(topic) => {
                    let mut expected: Vec<(u8, u16)> = model
                        .iter()
                        .filter(|((filter, _), _)| matches(filter, &topic))
                        .map(|((_, key), value)| (*key, *value))
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&trie, &topic), expected);
                }
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        for ((filter, key), value) in model {
            prop_assert_eq!(trie.remove(&filter, &key), Some(value));
        }
        prop_assert!(trie.is_empty());
        prop_assert_eq!(trie.nodes(), 1, "only the root is left");
    }
}

#[test]
fn deep_filters_need_no_deep_stack_and_many_wildcards_no_long_time() {
    let mut trie = FilterTrie::new();
    let deep = ["a"; 128].join("/");
    trie.insert(&deep, 1, 1);
    // Every mixture of literal and '+' over ten levels: a match visits each node once, not each path through a topic.
    for bits in 0..1_024_u32 {
        let levels: Vec<&str> = (0..10).map(|level| if bits >> level & 1 == 1 { "+" } else { "a" }).collect();
        trie.insert(&levels.join("/"), 2, bits as u16);
    }
    assert_eq!(found(&trie, &deep), [(1, 1)]);
    assert_eq!(found(&trie, &["a"; 10].join("/")).len(), 1_024);
    assert_eq!(found(&trie, &["b"; 10].join("/")), [(2, 1_023)]);
}

#[test]
fn places_are_used_again_and_memory_is_counted() {
    let mut trie = FilterTrie::new();
    let before = trie.memory_bytes();
    for round in 0..50 {
        for device in 0..200_u8 {
            trie.insert(&format!("devices/{device}/{round}/state"), device, round);
        }
        let full = trie.memory_bytes();
        assert!(full > before + 200 * 4 && full < 1_000_000, "{full}");
        assert_eq!(trie.nodes(), 1 + 1 + 3 * 200);
        for device in 0..200_u8 {
            assert_eq!(trie.remove(&format!("devices/{device}/{round}/state"), &device), Some(round));
        }
        assert_eq!(trie.nodes(), 1);
    }
    assert_eq!(trie.remove("devices/1", &1), None);
    assert!(trie.memory_bytes() < 200_000, "{}", trie.memory_bytes());
}

#[test]
fn the_memory_of_many_filters_is_given_back_and_what_stays_is_found() {
    let mut trie = FilterTrie::new();
    trie.insert("+/kept/#", 1, 1);
    let before = trie.memory_bytes();
    let filters: Vec<_> = (0..100_000).map(|n| format!("a/{}/+/{n}/#", n % 100)).collect();
    for filter in &filters {
        trie.insert(filter, 2, 2);
    }
    trie.insert("z/+/kept", 1, 3);
    assert!(trie.memory_bytes() > 10_000_000);
    filters.iter().for_each(|filter| assert_eq!(trie.remove(filter, &2), Some(2)));
    assert!(trie.memory_bytes() < before + 300_000, "{}", trie.memory_bytes());
    assert_eq!(found(&trie, "b/kept/x"), [(1, 1)]);
    assert_eq!(found(&trie, "z/x/kept"), [(1, 3)]);
    trie.insert("a/b", 4, 4);
    assert_eq!(found(&trie, "a/b"), [(4, 4)]);
    assert_eq!(trie.remove("z/+/kept", &1), Some(3));
    assert_eq!(found(&trie, "z/x/kept"), []);
}
