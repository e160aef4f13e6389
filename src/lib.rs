//! Keeps PostgreSQL tables in step with nested documents, writing only the rows that changed.

pub mod diff;
pub mod document;
pub mod engine;
pub mod error;
pub mod fingerprint;
pub mod json;
pub mod mapping;
pub mod plan;
pub mod postgres;
pub mod row;
pub mod schema;
pub mod shred;
pub mod value;
