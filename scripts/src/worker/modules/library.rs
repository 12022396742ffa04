//! The modules of Node.js that are written in JavaScript here, by the names under which `builtins.js` asks for them. Each file is
//! run when a script first asks for something of it: a context that is built anew pays for none of them.

/// The files by name.
pub(in super::super) const LIBRARY: [(&str, &str); 9] = [
    ("inspect", include_str!("library/inspect.js")),
    ("equal", include_str!("library/equal.js")),
    ("util", include_str!("library/util.js")),
    ("assert", include_str!("library/assert.js")),
    ("path", include_str!("library/path.js")),
    ("emitter", include_str!("library/emitter.js")),
    ("text_modules", include_str!("library/text_modules.js")),
    ("nodered", include_str!("library/nodered.js")),
    ("test", include_str!("library/test.js")),
];
