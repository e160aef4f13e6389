//! The command: arguments, input, output, exit codes. It uses the public library only.

pub mod args;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod init;
pub mod input;
pub mod output;
pub mod schema;
pub mod status;
pub mod sync;
pub mod tls;
pub mod verify;
