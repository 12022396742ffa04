//! Times as files have them: milliseconds since 1970-01-01 UTC, or a date and a time of day (ISO 8601), in UTC unless it says otherwise.

use tidegate_actors::clock::Millis;

use crate::ingest::LATEST;

/// The time of a text; `None`: it is none.
pub(super) fn parse(text: &str) -> Option<Millis> {
    let text = text.trim();
    let millis = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok()? } else { date(text)? };
    (0..=LATEST).contains(&millis).then_some(millis)
}

/// `2024-01-31`, then `T` or a space and `12:00`, `12:00:00` or `12:00:00.123`, then nothing, `Z` or an offset such as `+02:00`.
fn date(text: &str) -> Option<Millis> {
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let long = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(long),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=days).contains(&day) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400_000;
    if rest.is_empty() {
        return Some(midnight);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction = match fraction {
        "" => 0,
        digits if digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits:0<3}")[..3].parse::<i64>().ok()?
        }
        _ => return None,
    };
    let offset = match zone.as_bytes().first() {
        None => 0,
        Some(b'Z' | b'z') if zone.len() == 1 => 0,
        Some(sign @ (b'+' | b'-')) => {
            let digits = zone[1..].replace(':', "");
            let minutes =
                number(digits.get(..2)?, 2)? * 60 + if digits.len() > 2 { number(&digits[2..], 2)? } else { 0 };
            if *sign == b'+' { minutes } else { -minutes }
        }
        Some(_) => return None,
    };
    Some(midnight + ((hour * 60 + minute - offset) * 60 + second) * 1_000 + fraction)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days of the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_none() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000000", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14 22:13:20.5", Some(1_700_000_000_500)),
            ("2023-11-15T00:13:20.123456+02:00", Some(1_700_000_000_123)),
            ("2023-11-14T17:13:20-0500", Some(1_700_000_000_000)),
            ("2024-02-29", Some(1_709_164_800_000)),
            ("2023-02-29", None),
            ("2000-02-29", Some(951_782_400_000)),
            ("1900-02-29", None),
            ("2023-13-01", None),
            ("2023-11-14T25:00", None),
            ("2023-11-14T1:00", None),
            ("yesterday", None),
            ("", None),
            ("-5", None),
            ("99999999999999999999", None),
            ("2023-11-14T22:13:20X", None),
            ("2023-1é-14", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
