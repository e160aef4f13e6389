//! Plans against a small model of a database.
