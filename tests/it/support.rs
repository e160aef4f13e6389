//! What tests need: a database of one's own, and the command as a user runs it.

pub mod cluster;
pub mod command;
pub mod database;
pub mod feed;
pub mod layout;
pub mod pooler;
pub mod shelf;

pub use database::{Database, db, db_on};
