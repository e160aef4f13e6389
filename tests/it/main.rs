//! All integration tests are one binary: linked once, and no file can be forgotten.
//!
//! Every test gets a database of its own on a real server made for the run; see [`support`].

mod atomic;
mod catalog_check;
mod conformance;
mod constraints;
mod ddl;
mod deletions;
mod demo;
mod doctor;
mod extension;
mod faults;
mod feeds;
mod fingerprints;
mod found;
mod identity;
mod ignored;
mod inputs;
mod lanes;
mod layers;
mod lists;
mod local;
mod locks;
mod moves;
mod nights;
mod oracle;
mod oracle_checked;
mod packed;
mod pgbouncer;
mod power;
mod properties;
mod real_data;
mod schemas;
mod shop;
mod sql;
mod state;
mod status;
mod support;
mod tally;
mod tls;
mod triggers;
mod type_matrix;
mod upgrade;
mod values;
mod verify;
