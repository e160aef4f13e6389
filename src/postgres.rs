//! The ring around the pure core that talks to PostgreSQL.

pub mod local;
