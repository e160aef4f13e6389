//! Keeps PostgreSQL tables in step with nested documents, writing only the rows that changed.

pub mod json;
pub mod mapping;
pub mod postgres;
pub mod schema;
pub mod value;
