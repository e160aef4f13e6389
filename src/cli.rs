//! What only the command needs: a pipeline that embeds the library reads its own input.

pub mod input;
