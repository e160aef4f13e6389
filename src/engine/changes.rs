//! The rows that a run writes, told after their commit.
//!
//! ```text
//! worker: … write ─ put the rows into words ─ keep them (history) ─ COMMIT ─ wait for its turn ─ tell
//! ```
//!
//! A change is told once its transaction is committed, and never if it is not. Turns are handed out before COMMIT: of two
//! transactions the one that saw what the other did is told after it. Nothing is open while a listener is waited for,
//! neither a transaction nor a connection; but the worker waits, so that a slow listener slows the run and never fills
//! memory.

mod drafts;
mod outlet;

pub use crate::postgres::changes::{Action, Change, Values};
pub(crate) use drafts::{Written, changes};
pub(crate) use outlet::{Outlet, Pending};
