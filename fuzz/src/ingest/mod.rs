//! The node's files that make readings of payloads, under the names by which they call each other.

#[path = "../../../node/src/ingest/error.rs"]
mod error;
#[path = "../../../node/src/ingest/invariants.rs"]
pub(crate) mod invariants;
#[path = "../../../node/src/ingest/object.rs"]
mod object;
#[path = "../../../node/src/ingest/scalar.rs"]
mod scalar;
#[path = "../../../node/src/ingest/shape.rs"]
mod shape;

use error::IngestError;
use object::{LATEST, Object, check_depth, parse_object};
use shape::Parsed;
