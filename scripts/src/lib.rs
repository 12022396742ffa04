//! Owned by its helper.
