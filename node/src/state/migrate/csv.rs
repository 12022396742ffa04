//! ThingsBoard's telemetry as CSV (RFC 4180; the separator is a comma, a semicolon or a tab, whichever the header has most of).
//!
//! The header names the columns; case, spaces, `_` and `-` do not count. The device: `device id`, `device name`, `device`, `entity
//! name`, `entity`, `name` or `entity id`, the first of these that is there. The time: `ts`, `timestamp`, `time`, `datetime` or
//! `date`. With a `key` and a `value` column each row is one value (long form); else each further column is a key (wide form).
//! Of several rows of a device the newest value of each key counts; a row without a time is older than one with a time, and of
//! equal ones the later.

use std::collections::HashMap;

use tidegate_actors::{clock::Millis, ids::DeviceId};

use super::{FileOf, time, value};
use crate::state::source::Item;

const DEVICE: [&str; 7] = ["deviceid", "devicename", "device", "entityname", "entity", "name", "entityid"];
const TIME: [&str; 5] = ["ts", "timestamp", "time", "datetime", "date"];

/// The latest values of each device, and the rows that are none.
pub(super) fn thingsboard(of: &FileOf, text: &str) -> Vec<Item> {
    let mut rows = Rows { text, at: 0, line: 1, separator: separator(text) };
    let columns = match rows.next() {
        Some(Ok(header)) => Columns::of(&header).map_err(|reason| (header, reason)),
        Some(Err((row, reason))) => Err((row, reason)),
        None => {
            return vec![of.item((1, 1), "", Err("the file is empty: its first line names the columns".to_owned()))];
        }
    };
    let columns = match columns {
        Ok(columns) => columns,
        Err((row, reason)) => return vec![of.item((row.line, 1), row.text, Err(reason))],
    };
    let mut devices = Devices::default();
    let mut items = Vec::new();
    for row in rows {
        let (row, taken) = match row {
            Ok(row) => {
                let taken = columns.take(&row, &mut devices);
                (row, taken)
            }
            Err((row, reason)) => (row, Err((1, reason))),
        };
        if let Err((column, reason)) = taken {
            items.push(of.item((row.line, column), row.text, Err(reason)));
        }
    }
    items.extend(devices.in_order.into_iter().map(|one| {
        let mut fields = value::Object::default();
        one.values.iter().for_each(|(key, _, json)| fields.put(key, json));
        let newest = one.values.iter().filter_map(|(_, ts, _)| *ts).max();
        of.item((one.line, 1), one.first_row, Ok((one.device, newest, fields.json().into())))
    }));
    items
}

/// Devices in the order in which they are named first.
#[derive(Default)]
struct Devices<'a> {
    by_id: HashMap<DeviceId, usize>,
    in_order: Vec<OfDevice<'a>>,
}

struct OfDevice<'a> {
    device: DeviceId,
    line: u64,
    first_row: &'a str,
    /// Key, time and JSON of its newest value.
    values: Vec<(String, Option<Millis>, String)>,
}

impl<'a> Devices<'a> {
    fn put(&mut self, device: DeviceId, row: &Row<'a>, ts: Option<Millis>, key: &str, text: &str) {
        let index = *self.by_id.entry(device.clone()).or_insert(self.in_order.len());
        if index == self.in_order.len() {
            self.in_order.push(OfDevice { device, line: row.line, first_row: row.text, values: Vec::new() });
        }
        let values = &mut self.in_order[index].values;
        let json = value::of_text(text);
        match values.iter_mut().find(|(known, ..)| known == key) {
            Some((_, before, _)) if ts < *before => {}
            Some(value) => (value.1, value.2) = (ts, json),
            None => values.push((key.to_owned(), ts, json)),
        }
    }
}

/// What the columns mean.
struct Columns {
    names: Vec<String>,
    device: usize,
    time: Option<usize>,
    /// Key and value of the long form.
    long: Option<(usize, usize)>,
}

impl Columns {
    fn of(header: &Row<'_>) -> Result<Self, String> {
        let names: Vec<String> = header.cells.iter().map(|(_, name)| name.trim().to_owned()).collect();
        let plain: Vec<String> = names.iter().map(|name| name.to_lowercase().replace([' ', '_', '-'], "")).collect();
        let find = |wanted: &[&str]| wanted.iter().find_map(|name| plain.iter().position(|column| column == name));
        let device = find(&DEVICE).ok_or_else(|| {
            format!("no column names the device; the columns are {names:?}, one must be called device, device name, entity name or the like")
        })?;
        if let Some(empty) = names.iter().position(String::is_empty) {
            return Err(format!("column {} has no name", empty + 1));
        }
        let long = find(&["key"]).zip(find(&["value"]));
        Ok(Self { device, time: find(&TIME), long, names })
    }

    /// Puts a row's values where they belong; else the column in the line, and what is wrong with it.
    fn take<'a>(&self, row: &Row<'a>, devices: &mut Devices<'a>) -> Result<(), (usize, String)> {
        if row.cells.len() != self.names.len() {
            let (found, expected) = (row.cells.len(), self.names.len());
            return Err((1, format!("the row has {found} cells, the header {expected}")));
        }
        let wrong = |cell: usize, reason: String| (row.cells[cell].0, format!("{}: {reason}", self.names[cell]));
        let id = row.cells[self.device].1.trim();
        let device = DeviceId::new(id).map_err(|error| wrong(self.device, error.to_string()))?;
        let ts = match self.time.map(|cell| (cell, row.cells[cell].1.trim())) {
            None | Some((_, "")) => None,
            Some((cell, text)) => Some(time::parse(text).ok_or_else(|| {
                let expected = "milliseconds since 1970-01-01 UTC, or a date as in ISO 8601";
                wrong(cell, format!("{text:?} is no time; {expected}"))
            })?),
        };
        if let Some((key, value)) = self.long {
            let name = row.cells[key].1.trim();
            if name.is_empty() {
                return Err(wrong(key, "it is empty".to_owned()));
            }
            devices.put(device, row, ts, name, &row.cells[value].1);
            return Ok(());
        }
        for (cell, (_, text)) in row.cells.iter().enumerate() {
            if cell != self.device && Some(cell) != self.time && !text.trim().is_empty() {
                devices.put(device.clone(), row, ts, &self.names[cell], text);
            }
        }
        Ok(())
    }
}

/// The separator that the header has most of.
fn separator(text: &str) -> char {
    let header = text.lines().next().unwrap_or_default();
    let count = |separator: char| header.matches(separator).count();
    [',', ';', '\t'].into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(',')
}

/// A row: its cells, each with its column in the row.
struct Row<'a> {
    line: u64,
    text: &'a str,
    cells: Vec<(usize, String)>,
}

/// The rows of a text. One in error goes to the end of its line.
struct Rows<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    separator: char,
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Row<'a>, (Row<'a>, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.at;
            if start >= self.text.len() {
                return None;
            }
            let (line, read) = (self.line, self.row());
            let end = match &read {
                Ok((_, end)) => *end,
                Err(_) => self.text[start..].find('\n').map_or(self.text.len(), |end| start + end + 1),
            };
            let text = &self.text[start..end];
            self.at = end;
            self.line += text.matches('\n').count() as u64;
            if text.trim().is_empty() {
                continue;
            }
            let text = text.trim_end_matches(['\r', '\n']);
            return Some(match read {
                Ok((cells, _)) => Ok(Row { line, text, cells }),
                Err(reason) => Err((Row { line, text, cells: Vec::new() }, reason)),
            });
        }
    }
}

impl Rows<'_> {
    /// The cells of the next row, and where it ends.
    fn row(&self) -> Result<(Vec<(usize, String)>, usize), String> {
        let (mut cells, mut at) = (Vec::new(), self.at);
        loop {
            let rest = &self.text[at..];
            let column = at - self.at + 1;
            let (cell, length) = if rest.starts_with('"') { quoted(rest)? } else { self.plain(rest) };
            cells.push((column, cell));
            at += length;
            let rest = &self.text[at..];
            if let Some(after) = rest.strip_prefix(self.separator) {
                at = self.text.len() - after.len();
            } else if rest.is_empty() {
                return Ok((cells, at));
            } else if let Some(after) = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])) {
                return Ok((cells, self.text.len() - after.len()));
            } else {
                return Err(format!("column {}: something follows a closing quote", cells.len()));
            }
        }
    }

    fn plain(&self, rest: &str) -> (String, usize) {
        let end = rest.find([self.separator, '\n', '\r']).unwrap_or(rest.len());
        (rest[..end].to_owned(), end)
    }
}

/// A quoted cell, and its length with the quotes.
fn quoted(rest: &str) -> Result<(String, usize), String> {
    let (mut cell, mut at) = (String::new(), 1);
    while let Some(quote) = rest[at..].find('"') {
        cell.push_str(&rest[at..at + quote]);
        at += quote + 1;
        if !rest[at..].starts_with('"') {
            return Ok((cell, at));
        }
        cell.push('"');
        at += 1;
    }
    Err("a quote is not closed".to_owned())
}
