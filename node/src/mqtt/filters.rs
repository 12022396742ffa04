//! The subscriptions that match a topic: a trie over the levels of filters.
//!
//! Keys and values are the caller's; filters come in valid and without `$share/{group}/` (see `topic::check_filter`).
//! A match walks nodes on an explicit stack, because the depth is the client's choice, and allocates nothing up to 16
//! levels. A node is visited at most once a match, so a match never costs more than the trie is large.

use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;

/// Maps filters to keyed values, e.g. the session to its subscription options.
#[derive(Debug)]
pub(crate) struct FilterTrie<K, V> {
    /// Node 0 is the root. Freed places are in `free`.
    nodes: Vec<Node<K, V>>,
    free: Vec<u32>,
    /// All literal edges in one table: a table a node would cost more than most nodes hold.
    edges: HashMap<Edge, u32>,
    /// Bytes that nodes and edges own outside of `nodes` and `edges`: tables of entries, texts of levels.
    owned_bytes: usize,
    entries: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    entries: Entries<K, V>,
    /// Literal edges that start here.
    literals: u32,
    /// The node behind `+`, or [`NONE`].
    plus: u32,
    /// The node behind `#`, or [`NONE`].
    hash: u32,
}

/// What is under one filter. Most filters have one subscriber, for which a table would be five times too large.
#[derive(Debug)]
enum Entries<K, V> {
    None,
    One(K, V),
    Many(Box<HashMap<K, V>>),
}

const ROOT: u32 = 0;
/// No node: nothing leads to the root.
const NONE: u32 = 0;
/// Freed nodes that are kept for the next filters whatever else there is.
const FREE_NODES: usize = 1_024;
/// Stack places for 16 levels: a step replaces one by at most two.
const INLINE: usize = 17;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Edge {
    from: u32,
    level: Box<str>,
}

/// An [`Edge`] to look for, without owning its text; it must hash as `Edge` does.
#[derive(Hash)]
struct EdgeRef<'a> {
    from: u32,
    level: &'a str,
}

impl Equivalent<Edge> for EdgeRef<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.from == edge.from && self.level == &*edge.level
    }
}

impl<K: Eq + Hash, V> Entries<K, V> {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::None => {
                *self = Self::One(key, value);
                None
            }
            Self::One(known, old) if *known == key => Some(std::mem::replace(old, value)),
            Self::One(..) => {
                let mut table = Box::new(HashMap::with_capacity(2));
                table.insert(key, value);
                if let Self::One(key, value) = std::mem::replace(self, Self::None) {
                    table.insert(key, value);
                }
                *self = Self::Many(table);
                None
            }
            Self::Many(table) => table.insert(key, value),
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Self::None => None,
            Self::One(known, _) if known != key => None,
            Self::One(..) => match std::mem::replace(self, Self::None) {
                Self::One(_, value) => Some(value),
                _ => None,
            },
            Self::Many(table) => {
                let removed = table.remove(key)?;
                if table.len() == 1 {
                    let last = table.drain().next();
                    if let Some((key, value)) = last {
                        *self = Self::One(key, value);
                    }
                } else if table.capacity() > 4 * table.len() {
                    // What many have subscribed to once and few now should not hold its old table.
                    table.shrink_to_fit();
                }
                Some(removed)
            }
        }
    }

    fn for_each(&self, mut found: impl FnMut(&K, &V)) {
        match self {
            Self::None => {}
            Self::One(key, value) => found(key, value),
            Self::Many(table) => table.iter().for_each(|(key, value)| found(key, value)),
        }
    }

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(table) => size_of::<HashMap<K, V>>() + table.allocation_size(),
            _ => 0,
        }
    }
}

impl<K: Eq + Hash, V> Node<K, V> {
    fn new() -> Self {
        Self { entries: Entries::None, literals: 0, plus: NONE, hash: NONE }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.literals == 0 && self.plus == NONE && self.hash == NONE
    }
}

impl<K: Eq + Hash + Clone, V> Default for FilterTrie<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Eq + Hash + Clone, V> FilterTrie<K, V> {
    /// An empty trie.
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::new()], free: Vec::new(), edges: HashMap::new(), owned_bytes: 0, entries: 0 }
    }

    /// Puts `value` under `filter` and `key`; returns the value that it replaces.
    pub(crate) fn insert(&mut self, filter: &str, key: K, value: V) -> Option<V> {
        let mut node = ROOT;
        for level in filter.split('/') {
            node = match self.child(node, level) {
                NONE => self.add_child(node, level),
                child => child,
            };
        }
        let entries = &mut self.node_mut(node).entries;
        let before = entries.heap_bytes();
        let replaced = entries.insert(key, value);
        let after = entries.heap_bytes();
        self.owned_bytes = self.owned_bytes + after - before;
        self.entries += usize::from(replaced.is_none());
        replaced
    }

    /// Takes away what is under exactly this `filter` and `key`, and every node that holds nothing any more.
    pub(crate) fn remove(&mut self, filter: &str, key: &K) -> Option<V> {
        let mut path: SmallVec<[(u32, &str); INLINE]> = SmallVec::new();
        let mut node = ROOT;
        for level in filter.split('/') {
            path.push((node, level));
            node = self.child(node, level);
            if node == NONE {
                return None;
            }
        }
        let entries = &mut self.node_mut(node).entries;
        let before = entries.heap_bytes();
        let removed = entries.remove(key)?;
        let after = entries.heap_bytes();
        self.owned_bytes = self.owned_bytes + after - before;
        self.entries -= 1;
        while let Some((parent, level)) = path.pop() {
            if !self.node(node).is_empty() {
                break;
            }
            self.drop_child(parent, level, node);
            node = parent;
        }
        if self.free.len() > FREE_NODES && self.free.len() > self.nodes.len() / 4 * 3 {
            self.compact();
        }
        Some(removed)
    }

    /// Calls `found` for every key and value whose filter matches the topic name, in no particular order. A key with
    /// several matching filters is found several times. Returns how many filters matched: with one, each key was found once.
    pub(crate) fn for_each_match(&self, topic: &str, mut found: impl FnMut(&K, &V)) -> usize {
        let mut matched = 0;
        // A node and what of the topic is still to be matched below it; `None`: the topic ends here.
        let mut stack: SmallVec<[(u32, Option<&str>); INLINE]> = SmallVec::new();
        stack.push((ROOT, Some(topic)));
        while let Some((index, rest)) = stack.pop() {
            let node = self.node(index);
            // [MQTT-4.7.2-1]: wildcards do not match a first level that begins with '$'.
            let wildcards = index != ROOT || !topic.starts_with('$');
            if node.hash != NONE && wildcards {
                matched += 1;
                self.node(node.hash).entries.for_each(&mut found);
            }
            let Some(rest) = rest else {
                matched += usize::from(!node.entries.is_empty());
                node.entries.for_each(&mut found);
                continue;
            };
            let (level, below) = match memchr::memchr(b'/', rest.as_bytes()) {
                Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
                None => (rest, None),
            };
            if node.plus != NONE && wildcards {
                stack.push((node.plus, below));
            }
            if node.literals > 0
                && let Some(&child) = self.edges.get(&EdgeRef { from: index, level })
            {
                stack.push((child, below));
            }
        }
        matched
    }

    /// Values in the trie.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Nodes in use, with the root.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Heap memory in bytes, without what keys and values own and the allocator adds.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K, V>>()
            + self.free.capacity() * size_of::<u32>()
            + self.edges.allocation_size()
            + self.owned_bytes
    }

    /// Gives the memory of freed nodes back: what many filters took for a while should not stay taken. It costs as much as
    /// the removals before it did, at most.
    fn compact(&mut self) {
        let mut is_free = vec![false; self.nodes.len()];
        self.free.iter().for_each(|&node| is_free[node as usize] = true);
        let mut renumbered = vec![NONE; self.nodes.len()];
        let kept = renumbered.iter_mut().zip(&is_free).filter(|(_, is_free)| !**is_free);
        for ((renumbered, _), next) in kept.zip(ROOT..) {
            *renumbered = next;
        }
        let new = |old: u32| renumbered[old as usize];
        let nodes = std::mem::take(&mut self.nodes).into_iter().zip(is_free).filter(|(_, is_free)| !is_free);
        self.nodes = nodes.map(|(node, _)| Node { plus: new(node.plus), hash: new(node.hash), ..node }).collect();
        self.nodes.shrink_to_fit();
        self.free = Vec::new();
        let edges = std::mem::take(&mut self.edges);
        self.edges = edges.into_iter().map(|(edge, to)| (Edge { from: new(edge.from), ..edge }, new(to))).collect();
    }

    fn node(&self, index: u32) -> &Node<K, V> {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node<K, V> {
        &mut self.nodes[index as usize]
    }

    fn child(&self, node: u32, level: &str) -> u32 {
        match level {
            "+" => self.node(node).plus,
            "#" => self.node(node).hash,
            _ => self.edges.get(&EdgeRef { from: node, level }).copied().unwrap_or(NONE),
        }
    }

    fn add_child(&mut self, node: u32, level: &str) -> u32 {
        let child = match self.free.pop() {
            Some(child) => child,
            None => {
                self.nodes.push(Node::new());
                u32::try_from(self.nodes.len() - 1).expect("4 billion nodes do not fit the memory limit")
            }
        };
        match level {
            "+" => self.node_mut(node).plus = child,
            "#" => self.node_mut(node).hash = child,
            _ => {
                self.edges.insert(Edge { from: node, level: level.into() }, child);
                self.owned_bytes += level.len();
                self.node_mut(node).literals += 1;
            }
        }
        child
    }

    fn drop_child(&mut self, parent: u32, level: &str, child: u32) {
        match level {
            "+" => self.node_mut(parent).plus = NONE,
            "#" => self.node_mut(parent).hash = NONE,
            _ => {
                self.edges.remove(&EdgeRef { from: parent, level });
                self.owned_bytes -= level.len();
                self.node_mut(parent).literals -= 1;
            }
        }
        // Drops the table of its entries, too.
        *self.node_mut(child) = Node::new();
        self.free.push(child);
    }
}
