//! Keeps PostgreSQL tables in step with nested documents, writing only the rows that changed.

#[cfg(feature = "cli")]
pub mod cli;
pub mod json;
pub mod mapping;
pub mod schema;
pub mod value;
