//! All integration tests are one binary: linked once, and no file can be forgotten.
//!
//! Every test gets a database of its own on a real server made for the run; see [`support`].

mod fingerprints;
mod layers;
mod local;
mod nights;
mod oracle;
mod oracle_checked;
mod properties;
mod real_data;
mod sql;
mod support;
mod values;
