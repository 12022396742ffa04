//! Log lines on stderr: their format and their filter. Who logs, and what, is not decided here.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::{Log, LogFormat};

/// Starts logging for the process.
///
/// # Errors
/// Logging was started before.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = subscriber(log, std::io::stderr, colours)?;
    tracing::subscriber::set_global_default(subscriber).context("logging was started before")
}

fn subscriber<W>(log: &Log, writer: W, colours: bool) -> anyhow::Result<Box<dyn Subscriber + Send + Sync>>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut filter = EnvFilter::try_new(&log.level).context("log.level")?;
    if !log.level.contains("actix_http") {
        // It tells every request that it cannot parse as an error, without the client: anybody could fill the log.
        filter = filter.add_directive("actix_http=off".parse().context("log.level")?);
    }
    // A log reader that went away must not stop the node: the library would tell it with `eprintln!`, which panics.
    let lines = tracing_subscriber::fmt().log_internal_errors(false);
    let lines = lines.with_env_filter(filter).with_writer(writer).with_ansi(colours);
    Ok(match log.format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false).finish()),
        LogFormat::Pretty => Box::new(lines.finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What two lines, one below the level, look like.
    fn logged(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format, level: level.to_owned() };
        let subscriber = subscriber(&log, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too detailed");
            tracing::info!(device = "d1", count = 2, "reading\nrefused");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "reading\nrefused");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["device"], "d1");
        assert_eq!(line["count"], 2);
    }

    #[test]
    fn pretty_is_text_without_colours_where_none_are_wanted() {
        let text = logged(LogFormat::Pretty, "debug");
        assert!(text.contains("DEBUG") && text.contains("too detailed"), "{text}");
        assert!(text.contains("device=\"d1\" count=2"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_reader_that_went_away_stops_nobody() {
        struct Gone;
        impl std::io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let log = Log { format: LogFormat::Json, level: "info".to_owned() };
        let subscriber = subscriber(&log, || Gone, false).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!("nobody reads this"));
    }

    #[test]
    fn levels_by_target() {
        assert_eq!(logged(LogFormat::Json, "off"), "");
        assert_eq!(logged(LogFormat::Json, "info,tidegate=warn"), "");
        assert_eq!(logged(LogFormat::Json, "off,tidegate=debug").lines().count(), 2);
    }
}
