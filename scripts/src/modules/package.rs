//! `package.json`: which of its files a package gives, under which conditions.

use super::{
    ResolveError, Target, Tree,
    import::{Request, resolve_bare},
    json::Json,
};

/// What a manifest says of `.js` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Module,
    CommonJs,
    /// Nothing: the source decides.
    Open,
}

/// A manifest.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) folder: String,
    pub(super) name: Option<String>,
    pub(super) main: Option<String>,
    pub(super) kind: Type,
    /// Absent and `null` are the same.
    pub(super) exports: Option<Json>,
    pub(super) imports: Option<Json>,
}

impl Package {
    pub(super) fn read(folder: &str, text: &str) -> Result<Self, ResolveError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let bad = |why: String| ResolveError::bad_config(folder, None, &why);
        let json: Json = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if json.fields().is_none() {
            return Err(bad("It must be an object.".to_owned()));
        }
        let text = |name| json.field(name).and_then(Json::text).map(str::to_owned);
        Ok(Self {
            folder: folder.to_owned(),
            name: text("name"),
            main: text("main"),
            kind: match json.field("type").and_then(Json::text) {
                Some("module") => Type::Module,
                Some("commonjs") => Type::CommonJs,
                _ => Type::Open,
            },
            exports: json.field("exports").filter(|exports| **exports != Json::Null).cloned(),
            imports: json.field("imports").filter(|imports| imports.fields().is_some()).cloned(),
        })
    }

    /// What `exports` gives for a subpath (`.` or `./x`).
    pub(super) fn exported(
        &self,
        exports: &Json,
        subpath: &str,
        request: &Request<'_>,
    ) -> Result<Target, ResolveError> {
        let main_only;
        let exports = if self.is_main_only(exports, request.from)? {
            main_only = Json::Fields(vec![(".".to_owned(), exports.clone())]);
            &main_only
        } else {
            exports
        };
        let found = if !subpath.contains('*') && !subpath.ends_with('/') && exports.field(subpath).is_some() {
            let target = exports.field(subpath).unwrap_or(&Json::Null);
            self.target(target, None, subpath, false, request)?
        } else {
            match best_match(exports.fields().unwrap_or_default(), subpath) {
                Some((key, target, part)) => self.target(target, Some(part), key, false, request)?,
                None => Found::None,
            }
        };
        match found {
            Found::Target(target) => Ok(target),
            Found::None | Found::Null => Err(ResolveError::not_exported(&self.folder, subpath, request.from)),
        }
    }

    /// What `imports` gives for a name (`#x`).
    pub(super) fn imported(&self, name: &str, request: &Request<'_>) -> Result<Option<Target>, ResolveError> {
        let Some(imports) = &self.imports else { return Ok(None) };
        let found = match imports.field(name).filter(|_| !name.contains('*')) {
            Some(target) => self.target(target, None, name, true, request)?,
            None => match best_match(imports.fields().unwrap_or_default(), name) {
                Some((key, target, part)) => self.target(target, Some(part), key, true, request)?,
                None => Found::None,
            },
        };
        Ok(if let Found::Target(target) = found { Some(target) } else { None })
    }

    /// Is `exports` the main entry alone, without subpaths?
    fn is_main_only(&self, exports: &Json, from: Option<&str>) -> Result<bool, ResolveError> {
        let Some(fields) = exports.fields() else { return Ok(matches!(exports, Json::Text(_) | Json::List(_))) };
        let conditions = fields.iter().filter(|(key, _)| !key.starts_with('.')).count();
        if conditions > 0 && conditions < fields.len() {
            let why = "\"exports\" cannot contain some keys starting with '.' and some not. The exports object must either be \
                       an object of package subpath keys or an object of main entry condition name keys only.";
            return Err(ResolveError::bad_config(&self.folder, from, why));
        }
        Ok(conditions > 0)
    }

    /// `part`: what the star of a pattern stands for.
    fn target(
        &self,
        target: &Json,
        part: Option<&str>,
        key: &str,
        internal: bool,
        request: &Request<'_>,
    ) -> Result<Found, ResolveError> {
        match target {
            Json::Text(text) => self.file(text, part, key, internal, request).map(Found::Target),
            Json::Null => Ok(Found::Null),
            Json::List(targets) => {
                let mut last = Ok(if targets.is_empty() { Found::Null } else { Found::None });
                for target in targets {
                    match self.target(target, part, key, internal, request) {
                        Err(error) if error.code == "ERR_INVALID_PACKAGE_TARGET" => last = Err(error),
                        Ok(Found::None) => {}
                        Ok(Found::Null) => last = Ok(Found::Null),
                        found => return found,
                    }
                }
                last
            }
            Json::Fields(fields) => {
                if fields.iter().any(|(key, _)| key.parse::<u32>().is_ok_and(|number| number.to_string() == *key)) {
                    let why = "\"exports\" cannot contain numeric property keys.";
                    return Err(ResolveError::bad_config(&self.folder, request.from, why));
                }
                for (condition, target) in fields {
                    if condition == "default" || request.conditions().contains(&condition.as_str()) {
                        match self.target(target, part, key, internal, request)? {
                            Found::None => {}
                            found => return Ok(found),
                        }
                    }
                }
                Ok(Found::None)
            }
            Json::Scalar(text) => Err(ResolveError::bad_target(&self.folder, key, text, internal, request.from)),
        }
    }

    fn file(
        &self,
        target: &str,
        part: Option<&str>,
        key: &str,
        internal: bool,
        request: &Request<'_>,
    ) -> Result<Target, ResolveError> {
        let bad = || ResolveError::bad_target(&self.folder, key, target, internal, request.from);
        let Some(below) = target.strip_prefix("./") else {
            if !internal
                || target.starts_with('/')
                || target.starts_with("../")
                || super::import::scheme(target).is_some()
            {
                return Err(bad());
            }
            let name = part.map_or_else(|| target.to_owned(), |part| target.replace('*', part));
            return resolve_bare(&name, &Tree::join(&self.folder, "package.json"), request);
        };
        if has_bad_segment(below) {
            return Err(bad());
        }
        if let Some(part) = part
            && has_bad_segment(part)
        {
            let field = if internal { "imports" } else { "exports" };
            let reason = format!(
                "request is not a valid match in pattern \"{key}\" for the \"{field}\" resolution of {}",
                super::shown(&Tree::join(&self.folder, "package.json"))
            );
            return Err(ResolveError::bad_specifier(&key.replacen('*', part, 1), &reason, request.from));
        }
        let below = part.map_or_else(|| below.to_owned(), |part| below.replace('*', part));
        let path = Tree::locate(&self.folder, &super::import::decoded(&below)).map_err(|_| bad())?;
        Ok(Target::File(path, String::new()))
    }
}

/// What a target comes to.
enum Found {
    Target(Target),
    /// No condition holds.
    None,
    /// It is closed.
    Null,
}

/// Does a path hold a part that would leave its folder or its package?
fn has_bad_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(|part| {
        let part = super::import::decoded(part).to_ascii_lowercase();
        matches!(part.as_str(), "." | ".." | "node_modules")
    })
}

/// The most special pattern that matches: its key, its target and what the star stands for.
fn best_match<'a>(fields: &'a [(String, Json)], name: &'a str) -> Option<(&'a str, &'a Json, &'a str)> {
    let fits = |(key, target): &'a (String, Json)| {
        let (before, after) = key.split_once('*')?;
        let part = name.strip_prefix(before)?;
        let fits = name.len() >= key.len() && part.ends_with(after) && !after.contains('*');
        fits.then(|| (key.as_str(), target, &part[..part.len() - after.len()]))
    };
    let special = |key: &str| (key.find('*').unwrap_or(0), key.len());
    fields.iter().filter_map(fits).max_by_key(|(key, ..)| special(key))
}
