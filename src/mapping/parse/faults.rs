//! What is wrong with a mapping: collected while it is read, reported together.

use super::tree::Spot;

/// One fault of a mapping: where it is, what is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line of the TOML text, from 1; `None` in a mapping that has no lines.
    pub line: Option<usize>,
    /// The key, such as `root.children[0].columns.longitud`; empty for a fault of the syntax.
    pub place: String,
    /// What is wrong and what mends it.
    pub message: String,
}

/// All faults of a mapping, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

impl std::fmt::Display for MappingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for MappingError {}

/// The faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault. The same one again (a catalogue is checked once for each use) is left out.
    pub(super) fn add(&mut self, spot: &Spot, message: impl Into<String>) {
        let fault = Fault { line: spot.line, place: spot.place.clone(), message: message.into() };
        if !self.0.contains(&fault) {
            self.0.push(fault);
        }
    }

    /// `value`, unless there were faults.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, MappingError> {
        let mut faults = self.0;
        if faults.is_empty() {
            return Ok(value);
        }
        // Catalogues are read before the relations that use them; the reader goes by the file.
        faults.sort_by_key(|fault| fault.line);
        Err(MappingError { faults })
    }
}

/// The one of `known` that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two letters in the wrong order count twice; short names are all close to each other.
    let slips = if name.chars().count() < 4 { 1 } else { 2 };
    let close = |other: &&str| distance(name, other) <= slips;
    known.into_iter().filter(close).min_by_key(|other| distance(name, other))
}

/// Letters to insert, remove or replace to make `a` of `b`, with one row of the usual table.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `"a", "b" or "c"`.
pub(super) fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    let last = quoted.pop().unwrap_or_default();
    if quoted.is_empty() { last } else { format!("{} or {last}", quoted.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant_and_another_word_finds_none() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("tabel", ["table", "parent"]), Some("table"));
        assert_eq!(nearest("mach", ["lookup", "match"]), Some("match"));
        assert_eq!(nearest("fields", ["table", "columns"]), None);
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(["a"]), r#""a""#);
        assert_eq!(alternatives(["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
