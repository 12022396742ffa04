//! A time in milliseconds as people and other programs read it: RFC 3339, UTC. Pure.

use tidegate_actors::clock::Millis;

/// `2026-11-24T17:09:09.123Z`. Years beyond 9999 and before 0 keep their digits and sign.
pub(crate) fn utc(time: Millis) -> String {
    let (days, in_day) = (time.div_euclid(86_400_000), time.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (in_day / 1_000, in_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads `2026-11-24T17:09:09Z`, with or without milliseconds. `None`: it is no such time.
pub(crate) fn parse(text: &str) -> Option<Millis> {
    let plain = text.strip_suffix('Z')?;
    let (plain, millis) = match plain.split_once('.') {
        Some((plain, millis)) if millis.len() == 3 => (plain, millis.parse::<u32>().ok()?),
        Some(_) => return None,
        None => (plain, 0),
    };
    let (date, time) = plain.split_once('T')?;
    let numbers = |text: &str, between: char| text.split(between).map(|part| part.parse::<u32>().ok()).collect();
    let (date, time): (Option<Vec<_>>, Option<Vec<_>>) = (numbers(date, '-'), numbers(time, ':'));
    let (&[year, month, day], &[hour, minute, second]) = (&date?[..], &time?[..]) else { return None };
    // Days since 1970-01-01, by the same algorithm the other way round.
    let (year, month) = (i64::from(year), i64::from(month));
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    let read = seconds * 1_000 + i64::from(millis);
    // What is written otherwise than it would be written is no time: a month 13, a 30th of February.
    let is_whole = utc(read) == format!("{plain}.{millis:03}Z");
    is_whole.then_some(read)
}

/// Year, month and day of the days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(time), expected);
            assert!(time < 0 || expected.len() > 24 || parse(expected) == Some(time), "{expected}");
        }
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        for wrong in [
            "",
            "2023-11-14",
            "2023-13-14T22:13:20Z",
            "2023-02-30T22:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.1Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for extreme in [Millis::MIN, Millis::MAX] {
            assert!(utc(extreme).ends_with('Z'));
        }
    }
}
