//! What `find` and `count` look for: a query in the manner of MongoDB, read once and asked of each device's document. Pure.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Largest program of one regular expression, in bytes.
const REGEX_BYTES: usize = 1024 * 1024;
/// The fields of a device itself; every other name is a field of its state.
const OF_DEVICE: [&str; 6] = ["deviceId", "deviceTime", "receivedTime", "version", "connected", "state"];
const OPERATORS: &str = "$gt, $gte, $lt, $lte, $eq, $ne, $in, $nin, $exists, $regex, $not";

/// A query.
#[derive(Debug)]
pub(super) enum Query {
    All(Vec<Query>),
    Any(Vec<Query>),
    Not(Box<Query>),
    Field(Path, Test),
}

/// Names, from the document inwards.
#[derive(Debug, Clone)]
pub(super) struct Path(Vec<String>);

/// What is asked of a field.
#[derive(Debug)]
pub(super) enum Test {
    Equal(Value),
    Compare(Order, Value),
    OneOf(Vec<Value>),
    Exists(bool),
    Matches(Regex),
    All(Vec<Test>),
    Not(Box<Test>),
}

/// A comparison.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Query {
    /// Reads a query; nothing and `{}` mean every device.
    ///
    /// # Errors
    /// What is wrong, with what is allowed.
    pub(super) fn parse(query: &Value) -> Result<Self, String> {
        match query {
            Value::Null => Ok(Self::All(Vec::new())),
            Value::Object(members) => {
                let all = members.iter().map(|(name, value)| Self::member(name, value));
                all.collect::<Result<_, _>>().map(Self::All)
            }
            other => Err(format!("a query is an object, such as {{ temperature: {{ $gt: 30 }} }}; this is {other}")),
        }
    }

    /// Does it ask for every device?
    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All(parts) if parts.is_empty())
    }

    fn member(name: &str, value: &Value) -> Result<Self, String> {
        let list = || {
            let list = value.as_array().filter(|list| !list.is_empty());
            let list = list.ok_or_else(|| format!("{name} takes a list of queries that is not empty"))?;
            list.iter().map(Self::parse).collect::<Result<Vec<_>, _>>()
        };
        match name {
            "$and" => list().map(Self::All),
            "$or" => list().map(Self::Any),
            "$nor" => list().map(|queries| Self::Not(Box::new(Self::Any(queries)))),
            "$not" => Self::parse(value).map(|query| Self::Not(Box::new(query))),
            _ if name.starts_with('$') => Err(format!(
                "there is no {name} for a whole device; allowed: $and, $or, $nor, $not, and names of fields"
            )),
            _ => Ok(Self::Field(Path::parse(name)?, Test::parse(value)?)),
        }
    }

    /// Does the device's document match?
    pub(super) fn matches(&self, document: &Value) -> bool {
        match self {
            Self::All(queries) => queries.iter().all(|query| query.matches(document)),
            Self::Any(queries) => queries.iter().any(|query| query.matches(document)),
            Self::Not(query) => !query.matches(document),
            Self::Field(path, test) => test.matches(&path.of(document)),
        }
    }
}

impl Path {
    /// Reads a path: `temperature`, `motor.speed`, `samples.0`, `deviceId`, `state.version`.
    ///
    /// # Errors
    /// An empty name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err(format!("{text:?} is no name of a field: between dots there must be names"));
        }
        if !OF_DEVICE.contains(&names[0].as_str()) {
            names.insert(0, "state".to_owned());
        }
        Ok(Self(names))
    }

    /// What is there. A list on the way stands for each of its items.
    pub(super) fn of<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        walk(document, &self.0, &mut found);
        found
    }
}

fn walk<'a>(value: &'a Value, names: &[String], found: &mut Vec<&'a Value>) {
    let Some((name, rest)) = names.split_first() else {
        found.push(value);
        return;
    };
    match value {
        Value::Object(members) => {
            if let Some(member) = members.get(name) {
                walk(member, rest, found);
            }
        }
        Value::Array(items) => {
            if let Some(item) = name.parse::<usize>().ok().and_then(|index| items.get(index)) {
                walk(item, rest, found);
            }
            items.iter().filter(|item| item.is_object()).for_each(|item| walk(item, names, found));
        }
        _ => {}
    }
}

impl Test {
    fn parse(value: &Value) -> Result<Self, String> {
        let Value::Object(members) = value else { return Ok(Self::Equal(value.clone())) };
        if !members.keys().any(|name| name.starts_with('$')) {
            return Ok(Self::Equal(value.clone()));
        }
        let tests = members.iter().filter(|(name, _)| *name != "$options");
        tests.map(|(name, value)| Self::operator(name, value, members)).collect::<Result<_, _>>().map(Self::All)
    }

    fn operator(name: &str, value: &Value, beside: &Map<String, Value>) -> Result<Self, String> {
        let list = || value.as_array().cloned().ok_or_else(|| format!("{name} takes a list"));
        let not = |test| Self::Not(Box::new(test));
        Ok(match name {
            "$eq" => Self::Equal(value.clone()),
            "$ne" => not(Self::Equal(value.clone())),
            "$gt" => Self::Compare(Order::Greater, value.clone()),
            "$gte" => Self::Compare(Order::GreaterOrEqual, value.clone()),
            "$lt" => Self::Compare(Order::Less, value.clone()),
            "$lte" => Self::Compare(Order::LessOrEqual, value.clone()),
            "$in" => Self::OneOf(list()?),
            "$nin" => not(Self::OneOf(list()?)),
            "$exists" => Self::Exists(value.as_bool().ok_or("$exists takes true or false")?),
            "$regex" => Self::Matches(regex(value, beside.get("$options"))?),
            "$not" => not(Self::parse(value)?),
            _ => return Err(format!("there is no {name} for a field; allowed: {OPERATORS}")),
        })
    }

    /// `found`: what is at the path; nothing, if the field is missing.
    fn matches(&self, found: &[&Value]) -> bool {
        match self {
            Self::All(tests) => tests.iter().all(|test| test.matches(found)),
            Self::Not(test) => !test.matches(found),
            Self::Exists(wanted) => *wanted != found.is_empty(),
            // As in MongoDB: a field that is missing is as good as null.
            Self::Equal(Value::Null) => found.is_empty() || any(found, Value::is_null),
            Self::Equal(wanted) => any(found, |value| equal(value, wanted)),
            Self::OneOf(wanted) => wanted.iter().any(|wanted| Self::Equal(wanted.clone()).matches(found)),
            Self::Compare(order, wanted) => any(found, |value| order.holds(value, wanted)),
            Self::Matches(regex) => any(found, |value| value.as_str().is_some_and(|text| regex.is_match(text))),
        }
    }
}

/// A field that is a list matches as a whole or by one of its items.
fn any(found: &[&Value], test: impl Fn(&Value) -> bool) -> bool {
    found.iter().any(|value| test(value) || value.as_array().is_some_and(|items| items.iter().any(&test)))
}

/// 1 and 1.0 are one number, as in JavaScript.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

impl Order {
    /// Only what is of one kind can be compared.
    fn holds(self, value: &Value, wanted: &Value) -> bool {
        let ordering = match (value, wanted) {
            (Value::Number(value), Value::Number(wanted)) => value.as_f64().partial_cmp(&wanted.as_f64()),
            (Value::String(value), Value::String(wanted)) => Some(value.cmp(wanted)),
            (Value::Bool(value), Value::Bool(wanted)) => Some(value.cmp(wanted)),
            _ => None,
        };
        ordering.is_some_and(|ordering| match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        })
    }
}

fn regex(pattern: &Value, options: Option<&Value>) -> Result<Regex, String> {
    let pattern = pattern.as_str().ok_or("$regex takes a text or a regular expression")?;
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(REGEX_BYTES);
    for option in options.and_then(Value::as_str).unwrap_or_default().chars() {
        match option {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'g' | 'u' | 'v' | 'y' | 'd' => &mut builder,
            other => return Err(format!("there is no option {other:?} for $regex; allowed: i, m, s")),
        };
    }
    builder.build().map_err(|error| {
        let words = error.to_string();
        let last = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("the regular expression {pattern:?} cannot be used: {last} (no look-around, no references back)")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> Value {
        json!({
            "deviceId": "pump-7", "connected": true, "version": 3, "receivedTime": 1000, "deviceTime": null,
            "state": {
                "temperature": 31.5, "version": "1.2", "mode": "auto", "motor": { "speed": 900, "on": true }, "none": null,
                "samples": [1, 5, 9], "parts": [{ "name": "seal", "worn": 2 }, { "name": "rotor" }],
            },
        })
    }

    #[test]
    fn queries_match_as_in_mongodb() {
        for (query, matches) in [
            (json!(null), true),
            (json!({}), true),
            (json!({"temperature": 31.5}), true),
            (json!({"temperature": {"$gt": 30}}), true),
            (json!({"temperature": {"$gt": 30, "$lt": 31}}), false),
            (json!({"temperature": {"$gte": 31.5, "$lte": 31.5}}), true),
            (json!({"temperature": {"$gt": "30"}}), false),
            (json!({"mode": {"$gt": "aaa"}}), true),
            (json!({"mode": {"$ne": "manual"}}), true),
            (json!({"mode": {"$in": ["manual", "auto"]}}), true),
            (json!({"mode": {"$nin": ["manual", "auto"]}}), false),
            (json!({"nothere": {"$nin": [1]}}), true),
            (json!({"nothere": {"$ne": 1}}), true),
            (json!({"nothere": null}), true),
            (json!({"none": null}), true),
            (json!({"none": {"$exists": true}}), true),
            (json!({"nothere": {"$exists": false}}), true),
            (json!({"nothere": {"$gt": 0}}), false),
            (json!({"motor.speed": {"$gte": 900}}), true),
            (json!({"motor": {"on": true, "speed": 900.0}}), true),
            (json!({"motor": {"speed": 900}}), false),
            (json!({"samples": 5}), true),
            (json!({"samples": [1, 5, 9]}), true),
            (json!({"samples.2": 9}), true),
            (json!({"samples": {"$gt": 8}}), true),
            (json!({"parts.name": "rotor"}), true),
            (json!({"parts.worn": {"$gt": 2}}), false),
            (json!({"mode": {"$regex": "^AU", "$options": "i"}}), true),
            (json!({"mode": {"$regex": "^AU"}}), false),
            (json!({"deviceId": {"$regex": "^pump-"}}), true),
            (json!({"version": 3, "state.version": "1.2", "connected": true}), true),
            (json!({"temperature": {"$not": {"$gt": 40}}}), true),
            (json!({"$or": [{"temperature": 1}, {"mode": "auto"}]}), true),
            (json!({"$and": [{"temperature": 1}, {"mode": "auto"}]}), false),
            (json!({"$nor": [{"temperature": 1}]}), true),
            (json!({"$not": {"mode": "auto"}}), false),
        ] {
            let parsed = Query::parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(parsed.matches(&device()), matches, "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_told_with_what_is_allowed() {
        for (query, words) in [
            (json!([1]), "a query is an object"),
            (json!({"a": {"$larger": 1}}), "there is no $larger for a field; allowed: $gt"),
            (json!({"$where": "x"}), "there is no $where for a whole device"),
            (json!({"a": {"$in": 1}}), "$in takes a list"),
            (json!({"$or": []}), "not empty"),
            (json!({"a..b": 1}), "between dots"),
            (json!({"a": {"$exists": 1}}), "true or false"),
            (json!({"a": {"$regex": "(?=x)"}}), "no look-around"),
            (json!({"a": {"$regex": "x", "$options": "q"}}), "there is no option 'q'"),
            (json!({"a": {"$regex": "x{1000}{1000}{1000}"}}), "cannot be used"),
        ] {
            let error = Query::parse(&query).expect_err("wrong");
            assert!(error.contains(words), "{query}: {error}");
        }
    }
}
