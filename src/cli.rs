//! The command: arguments, input, output, exit codes. It uses the public library only.

pub mod args;
pub mod changes;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod history;
pub mod init;
pub mod input;
pub mod manual;
pub mod metrics;
pub mod output;
pub mod plan;
pub mod progress;
pub mod rows;
pub mod schema;
pub mod status;
pub mod summary;
pub mod sync;
pub mod tls;
pub mod verify;
