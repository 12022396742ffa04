//! Tables that may be given many times, such as `[[bridge]]`: their columns, and how one of them is filled and told.
//!
//! A row's struct and columns are declared with `row!`, as sections are in `keys`. Only the file can hold rows: no variable and
//! no flag names one. What the rows mean together is judged by the file that declares them.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value as Json, json};

use super::{
    rule::Rule,
    source::{Problem, Source, printable},
    suggest,
    value::{Raw, Value},
};

/// The lists of tables that a file may hold.
pub(crate) const LISTS: [&str; 1] = ["bridge"];

/// One key of a row.
pub(crate) struct Column<T: 'static> {
    /// The last part of its dotted path.
    pub(crate) name: &'static str,
    /// What is allowed.
    pub(crate) rule: Rule,
    /// What it means, in Markdown.
    pub(crate) meaning: &'static str,
    /// What happens with it.
    pub(crate) effect: &'static str,
    /// Must it be given?
    pub(crate) needed: bool,
    /// The default in words, where a value would not do.
    pub(crate) derived: Option<&'static str>,
    /// The row's value; [`Value::Absent`] if it has none.
    pub(crate) get: fn(&T) -> Value,
    /// Sets it; `None` if the value does not fit its type.
    pub(crate) set: fn(&mut T, Value) -> Option<()>,
}

/// A struct that one table fills.
pub(crate) trait Row: Default + 'static {
    /// The dotted path of the list, such as `bridge.subscription`.
    const LIST: &'static str;
    /// What a row is about.
    const ABOUT: &'static str;
    /// Its keys, in the order of the reference.
    const COLUMNS: &'static [Column<Self>];
    /// The name of the list in a row, if it has one.
    const NESTED: &'static [&'static str];
}

/// Declares a row: its struct with defaults, and its columns.
///
/// A column is `"name" field: type = default, rule, "effect"`, then `needed` or `derived "…"`.
macro_rules! row {
    (
        $(#[doc = $about:literal])+
        $struct:ident [$list:literal] => {
            $(nested $nested_name:literal $nested:ident: $nested_type:ty,)?
            $(
                $(#[doc = $meaning:literal])+
                $name:literal $field:ident: $type:ty = $default:expr, $rule:expr, $effect:literal
                $(, $needed:ident)? $(, = $derived:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $struct {
            $(
                /// The tables in this one.
                pub(crate) $nested: $nested_type,
            )?
            $( $(#[doc = $meaning])+ pub(crate) $field: $type, )+
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($nested: Default::default(),)? $($field: $default,)+ }
            }
        }

        impl $crate::config::rows::Row for $struct {
            const LIST: &'static str = $list;
            const ABOUT: &'static str = concat!($($about),+);
            const NESTED: &'static [&'static str] = &[$($nested_name)?];
            const COLUMNS: &'static [$crate::config::rows::Column<Self>] = &[$($crate::config::rows::Column {
                name: $name,
                rule: $rule,
                meaning: concat!($($meaning),+),
                effect: $effect,
                needed: row!(@needed $($needed)?),
                derived: row!(@option $($derived)?),
                get: |row| row.$field.to_value(),
                set: |row, value| {
                    row.$field = $crate::config::value::Field::from_value(value)?;
                    Some(())
                },
            },)+];
        }
    };
    (@needed) => { false };
    (@needed needed) => { true };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
}
pub(crate) use row;

/// A table of a list, as typed.
pub(crate) struct RawRow {
    /// Where it begins.
    pub(crate) at: Source,
    pub(crate) cells: Vec<RawCell>,
}

/// What stands under one name of a table.
pub(crate) struct RawCell {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) at: Source,
    pub(crate) content: Content,
}

/// A value, or tables.
pub(crate) enum Content {
    Value { raw: Raw, shown: String, at: Source },
    Rows(Vec<RawRow>),
}

/// Where the values of rows came from, by paths such as `bridge[0].url`; a row's own path has its beginning.
pub(crate) type Places = BTreeMap<String, Source>;

/// Fills a row; what is wrong goes to `problems`. The list in it goes to `nested`.
pub(crate) fn fill<T: Row>(
    path: &str,
    raw: RawRow,
    places: &mut Places,
    problems: &mut Vec<Problem>,
    mut nested: impl FnMut(&mut T, Vec<RawRow>, &mut Places, &mut Vec<Problem>),
) -> T {
    let mut row = T::default();
    places.insert(path.to_owned(), raw.at.clone());
    let mut tried = Vec::new();
    for RawCell { name, at, content } in raw.cells {
        let key = format!("{}.{name}", T::LIST);
        let column = T::COLUMNS.iter().find(|column| column.name == name);
        match (column, content) {
            (Some(column), Content::Value { raw, shown, at }) => {
                tried.push(column.name);
                let set = column
                    .rule
                    .check(&raw)
                    .and_then(|value| (column.set)(&mut row, value).ok_or_else(|| "is out of range".to_owned()));
                match set {
                    Ok(()) => drop(places.insert(format!("{path}.{name}"), at)),
                    Err(wrong) => {
                        let shown = if column.rule.is_secret() { "…" } else { &shown };
                        let message = format!("{key} = {shown} {wrong}; allowed: {}", column.rule.allowed());
                        problems.push(Problem::of_key(at, &key, message));
                    }
                }
            }
            (Some(column), Content::Rows(_)) => {
                tried.push(column.name);
                let message = format!("{key} is a value, not a table; allowed: {}", column.rule.allowed());
                problems.push(Problem::of_key(at, &key, message));
            }
            (None, Content::Rows(rows)) if T::NESTED.contains(&name.as_str()) => {
                nested(&mut row, rows, places, problems);
            }
            (None, Content::Value { .. }) if T::NESTED.contains(&name.as_str()) => {
                problems.push(Problem::of_key(
                    at,
                    &key,
                    format!("{key} is a list of tables: begin each with [[{key}]]"),
                ));
            }
            (None, _) => {
                let known = T::COLUMNS.iter().map(|column| column.name).chain(T::NESTED.iter().copied());
                let near = suggest::nearest(&name, known);
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {}.{near}?", T::LIST));
                problems.push(Problem::of_key(at, &key, format!("unknown key {}{hint}", printable(&key))));
            }
        }
    }
    for column in T::COLUMNS.iter().filter(|column| column.needed && !tried.contains(&column.name)) {
        let key = format!("{}.{}", T::LIST, column.name);
        let message = format!("this [[{}]] has no {}; allowed: {}", T::LIST, column.name, column.rule.allowed());
        problems.push(Problem::of_key(raw.at.clone(), &key, message));
    }
    row
}

/// A row as TOML that can be read back, but for secrets, each value with its source.
pub(crate) fn toml<T: Row>(path: &str, row: &T, places: &Places) -> String {
    // A secret that stands in a file of its own does not stand here.
    let stands =
        |column: &Column<T>| !column.rule.is_secret() || places.contains_key(&format!("{path}.{}", column.name));
    let given = |column: &'static Column<T>| Some((column, (column.get)(row))).filter(|(_, value)| !value.is_absent());
    let lines: Vec<_> = T::COLUMNS
        .iter()
        .filter(|column| stands(column))
        .filter_map(given)
        .map(|(column, value)| {
            (format!("{} = {}", column.name, column.rule.show(&value)), origin(path, column.name, places))
        })
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let mut text = format!("\n[[{}]]\n", T::LIST);
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}

/// `{"name": {"value", "source"}, …}`.
pub(crate) fn json<T: Row>(path: &str, row: &T, places: &Places) -> Map<String, Json> {
    let entry = |column: &Column<T>| {
        let value = (column.get)(row).to_json();
        (column.name.to_owned(), json!({ "value": value, "source": origin(path, column.name, places).to_json() }))
    };
    T::COLUMNS.iter().map(entry).collect()
}

fn origin(path: &str, name: &str, places: &Places) -> Source {
    places.get(&format!("{path}.{name}")).cloned().unwrap_or(Source::Default)
}

/// The reference of a row, as Markdown.
pub(crate) fn markdown<T: Row>() -> String {
    let defaults = T::default();
    let mut text = format!("\n## [[{}]]\n\n{}\n", T::LIST, T::ABOUT.trim());
    for column in T::COLUMNS {
        let default = match (column.get)(&defaults) {
            _ if column.needed => "- must be given".to_owned(),
            _ if column.derived.is_some() => format!("- default: {}", column.derived.unwrap_or_default()),
            value if value.is_absent() => "- default: none".to_owned(),
            value => format!("- default: `{}`", column.rule.show(&value)),
        };
        let _ = write!(
            text,
            "\n### `{}.{}`\n\n{}\n\n{default}\n- allowed: {}\n- {}\n",
            T::LIST,
            column.name,
            column.meaning.trim(),
            column.rule.allowed(),
            column.effect
        );
    }
    text
}
