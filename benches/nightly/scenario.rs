//! The nights that are measured.

use crate::calls::{Night, RATE};

/// What the tables hold beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Empty,
    /// The first night, and every contestant remembers it.
    Loaded,
    /// The first night, and nobody remembers it.
    Adopted,
}

/// One kind of night.
#[derive(Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is called in tables.
    pub title: &'static str,
    /// What the tables hold beforehand.
    pub start: Start,
    /// What has happened to the calls since the first night.
    pub night: Night,
    /// Whether calls that are missing have to go.
    pub complete: bool,
    /// The share of changed calls, in percent, if the night is about that.
    pub share: Option<f64>,
}

/// The first night. Its calls stand in the feed once each.
pub const FIRST: Night =
    Night { changed: 0, reordered: 0, removed: 0, added: 0, repeated: 0, unmapped: 0, shuffled: 0 };

const fn loaded(name: &'static str, title: &'static str, night: Night) -> Scenario {
    Scenario { name, title, start: Start::Loaded, night, complete: false, share: None }
}

const fn changed(name: &'static str, title: &'static str, rate: u32) -> Scenario {
    let share = Some(rate as f64 * 100.0 / RATE as f64);
    Scenario { share, ..loaded(name, title, Night { changed: rate, ..FIRST }) }
}

/// All of them.
pub const SCENARIOS: [Scenario; 11] = [
    Scenario { start: Start::Empty, ..loaded("first", "first load", FIRST) },
    changed("unchanged", "nothing changed", 0),
    changed("changed-0.1", "0.1 % changed", RATE / 1000),
    changed("changed-1", "1 % changed", RATE / 100),
    changed("changed-10", "10 % changed", RATE / 10),
    changed("changed-100", "100 % changed", RATE),
    loaded("reordered", "lists reordered", Night { reordered: RATE, ..FIRST }),
    loaded("unmapped", "unmapped field changed", Night { unmapped: RATE, ..FIRST }),
    loaded("shuffled", "keys shuffled", Night { shuffled: RATE, ..FIRST }),
    Scenario {
        complete: true,
        ..loaded("removed-1", "1 % removed, --complete", Night { removed: RATE / 100, ..FIRST })
    },
    Scenario { start: Start::Adopted, ..loaded("adopted", "adopted tables", FIRST) },
];

impl Scenario {
    /// Whether rows have to be written that can be planned beforehand.
    pub fn is_edit(&self) -> bool {
        self.start == Start::Loaded && (self.night.changed > 0 || self.night.removed > 0)
    }

    /// Whether the feed differs from the first night's by nothing that is stored.
    pub fn is_respelled(&self) -> bool {
        self.night.reordered > 0 || self.night.unmapped > 0 || self.night.shuffled > 0
    }
}
