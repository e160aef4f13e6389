//! How long each of several statements took that are sent without waiting for each other's answers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The server does one after the other: each took from the answer before its own.
pub(crate) struct Turns(Mutex<Instant>);

impl Turns {
    /// They are sent now.
    pub fn start() -> Self {
        Turns(Mutex::new(Instant::now()))
    }

    /// The next one was answered; it took so long.
    pub fn next(&self) -> Duration {
        let (mut before, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        now.duration_since(std::mem::replace(&mut *before, now))
    }
}
