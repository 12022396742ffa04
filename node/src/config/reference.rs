//! The reference of every key as Markdown: `docs/config.md` is what this writes. Pure, and the same on every machine.

use std::fmt::Write;

use super::{
    Config, bridges, environment,
    keys::{Key, SECTIONS},
};

const HEAD: &str = "\
# Configuration

<!-- Written by `tidegate config reference`; a test compares. Change `node/src/config/keys.rs`, then write it again. -->

Tidegate starts without any configuration. What is set is taken from, later winning over earlier:

1. the file that `--config` names, or else `./tidegate.toml` if it is there (TOML);
2. environment variables: `TIDEGATE_`, then the key in capitals with `__` for each dot (`TIDEGATE_MQTT__LIMITS__INFLIGHT`);
   other variables without a double underscore are left alone, since container platforms set some of their own;
3. flags of the command line.

A value replaces the whole value before it; lists are not merged. Unknown keys and variables, wrong types and values out
of bounds are refused, all of them at once, each with its place, and the exit code is 78. `tidegate config check` checks
without starting; `tidegate config show` prints what is in effect and where each value came from.

Times end in `_ms` and are integers. Sizes end in `_bytes` and are integers, or strings with a unit: `\"64MiB\"`
(B, KiB, MiB, GiB, TiB; 1 KiB is 1024 bytes). Addresses are `\"127.0.0.1:1883\"`, `\"[::1]:1883\"`, `\"localhost:1883\"`
(127.0.0.1), or a list of them; as a variable or flag a list is separated by commas.

An address that other machines can reach is refused unless its clients must authenticate ([security](security.md)) or
`security.insecure_allow_anonymous` is set.

Tables in double brackets (`[[bridge]]`) may be given many times, and only in the file: no variable and no flag sets a value
of theirs. Secrets are shown as `***`.
";

/// The whole reference.
pub(crate) fn markdown() -> String {
    let defaults = Config::default();
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(text, "\n## [{}]\n\n{}\n", section.path, section.about.trim());
        for key in section.keys {
            let _ = write!(text, "\n{}", entry(key, &defaults));
        }
    }
    text + &bridges::markdown()
}

fn entry(key: &Key, defaults: &Config) -> String {
    let default = key.derived.map_or_else(|| format!("`{}`", key.rule.show(&(key.get)(defaults))), str::to_owned);
    let flag = key.flag.map_or_else(String::new, |flag| format!(" · flag `{flag}`"));
    format!(
        "### `{}`\n\n{}\n\n- default: {default}\n- allowed: {}\n- {}\n- variable `{}`{flag}\n",
        key.path,
        key.meaning.trim(),
        key.rule.allowed(),
        key.effect,
        environment::variable_of(key.path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_the_keys_say() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        let written = std::fs::read_to_string(document).expect("docs/config.md is there");
        assert!(written == markdown(), "docs/config.md is stale: tidegate config reference > docs/config.md");
    }
}
