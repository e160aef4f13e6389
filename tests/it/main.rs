//! All integration tests are one binary: linked once, and no file can be forgotten.
//!
//! Every test gets a database of its own on a real server made for the run; see [`support`].

mod feeds;
mod lists;
mod local;
mod locks;
mod moves;
mod oracle;
mod oracle_checked;
mod real_data;
mod shop;
mod state;
mod support;
mod values;
