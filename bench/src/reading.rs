//! The readings that all scenarios send: about 200 bytes of JSON, as an industrial sensor reports them.

/// How many different readings each connection sends in turn.
pub(crate) const VARIANTS: usize = 16;

/// The fields of the reading number `variant` of device `device`, without braces.
///
/// There is no device time: every server stamps the reading itself, so that a reading sent twice is not "late".
fn fields(device: usize, variant: usize) -> String {
    let wobble = (device * 7 + variant * 13) % 100;
    format!(
        r#""temperature":{}.{wobble:02},"humidity":{}.5,"pressure":{}.25,"vibration":0.{wobble:02}7,"voltage":3.29,"rpm":{},"status":"running","firmware":"2.4.1","line":{},"battery":{},"rssi":-67,"uptime":{}"#,
        60 + variant * 2 % 30,
        40 + variant % 20,
        1000 + variant,
        1400 + wobble,
        device % 8,
        10 + wobble % 90,
        100_000 + variant,
    )
}

/// A reading as an MQTT payload: the topic names the device.
pub(crate) fn mqtt(device: usize, variant: usize) -> String {
    format!("{{{}}}", fields(device, variant))
}

/// A reading as a body of `POST /metrics`.
pub(crate) fn http(device_id: &str, device: usize, variant: usize) -> String {
    format!(r#"{{"deviceId":"{device_id}",{}}}"#, fields(device, variant))
}

/// A reading as a body of `POST /metrics` that carries a number to follow through the fan-out.
pub(crate) fn numbered(device_id: &str, seq: u64) -> String {
    format!(r#"{{"deviceId":"{device_id}","seq":{seq},{}}}"#, fields(0, seq as usize % VARIANTS))
}

/// The number that [`numbered`] put into a reading, wherever it stands in `text`.
pub(crate) fn number_of(text: &[u8]) -> Option<u64> {
    const KEY: &[u8] = br#""seq":"#;
    let at = text.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_json_of_about_two_hundred_bytes() {
        for variant in 0..VARIANTS {
            let reading = mqtt(variant * 31, variant);
            serde_json::from_str::<serde_json::Value>(&reading).expect("a reading is JSON");
            assert!((180..=240).contains(&reading.len()), "{} bytes", reading.len());
        }
    }

    #[test]
    fn a_number_is_found_again() {
        assert_eq!(number_of(numbered("d", 4711).as_bytes()), Some(4711));
        assert_eq!(number_of(br#"{"type":"hello"}"#), None);
    }
}
