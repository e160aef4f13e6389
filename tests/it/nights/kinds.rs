//! Lists of several kinds, and strings that are altered before they are stored.

use fastrand::Rng;

use super::shape::{Kind, Place, Shape};

/// What tells the items of a relation from the others of its list.
#[derive(Clone)]
pub struct Kinds {
    /// Which of [`VALUES`] its items have at `kind`.
    values: &'static [usize],
    /// Whether they also have `false` at `meta.off`.
    pub twofold: bool,
    /// Whether the list holds items that no relation takes.
    pub strays: bool,
}

/// Kinds, each with its spellings; the first one is TOML too.
const VALUES: [&[&str]; 4] =
    [&["\"a\"", "\"\\u0061\""], &["1", "1.0", "10e-1"], &["\"é\"", "\"\\u00e9\""], &["true"]];

/// What is none of them.
const STRANGE: [&str; 8] = ["\"A\"", "\"1\"", "\"true\"", "null", "2", "false", "[1]", "{\"a\":1}"];

impl Kinds {
    /// The lines of the mapping.
    pub fn toml(&self) -> String {
        let values: Vec<&str> = self.values.iter().map(|&at| VALUES[at][0]).collect();
        let twofold = if self.twofold { ", meta.off = false" } else { "" };
        let strays = if self.strays { "otherwise = \"ignore\"\n" } else { "" };
        format!("where = {{ kind = [{}]{twofold} }}\n{strays}", values.join(", "))
    }

    /// The members that make an item one of the relation's.
    pub fn members(&self, rng: &mut Rng) -> Vec<(String, String)> {
        let value = VALUES[self.values[rng.usize(..self.values.len())]];
        self.with(Some(value[rng.usize(..value.len())]), "false")
    }

    /// The members that make it one of nobody's.
    pub fn strange(&self, rng: &mut Rng) -> Vec<(String, String)> {
        match rng.u8(..8) {
            0 => self.with(None, "false"),
            1 | 2 if self.twofold => self.with(Some(VALUES[self.values[0]][0]), "null"),
            _ => self.with(Some(STRANGE[rng.usize(..STRANGE.len())]), "false"),
        }
    }

    fn with(&self, kind: Option<&str>, off: &str) -> Vec<(String, String)> {
        let kind = kind.map(|kind| ("kind".to_owned(), kind.to_owned()));
        let meta = self.twofold.then(|| ("meta".to_owned(), format!("{{\"off\":{off}}}")));
        kind.into_iter().chain(meta).collect()
    }
}

impl Shape {
    /// Draws which relations take a part of a list only, and which two read the same one.
    pub fn tell_apart(&mut self, rng: &mut Rng) {
        for ix in 1..self.relations.len() {
            let takes_kinds = !self.relations[ix].scalar && self.relations[ix].kinds.is_none();
            if !takes_kinds || rng.u8(..3) > 0 {
                continue;
            }
            // Where places in the list are stored, nothing else may come between.
            let is_loose = self.is_loose(ix);
            let twofold = rng.u8(..3) == 0;
            let kinds = Kinds { values: &[0, 1], twofold, strays: is_loose && rng.bool() };
            let rel = &self.relations[ix];
            let (field, enclosing, strays) = (rel.field.clone(), rel.enclosing, kinds.strays);
            let (when_absent, when_null) = (rel.when_absent, rel.when_null);
            self.relations[ix].kinds = Some(kinds);
            let other = (ix + 1..self.relations.len()).find(|&other| {
                let rel = &self.relations[other];
                rel.enclosing == enclosing && !rel.scalar && self.is_loose(other)
            });
            let Some(other) = other.filter(|_| is_loose && rng.u8(..4) > 0) else { continue };
            self.relations[ix].single = false;
            let other = &mut self.relations[other];
            other.kinds = Some(Kinds { values: &[2, 3], twofold, strays });
            (other.field, other.when_absent, other.when_null, other.single) =
                (field, when_absent, when_null, false);
        }
    }

    fn is_loose(&self, ix: usize) -> bool {
        let rel = &self.relations[ix];
        rel.kind != Kind::Root && !rel.map && !rel.columns.iter().any(|col| col.place == Place::Index)
    }

    /// Whether its list is read by another relation too.
    pub fn shares(&self, ix: usize) -> bool {
        let rel = &self.relations[ix];
        let same = |other: usize| {
            other != ix
                && self.relations[other].enclosing == rel.enclosing
                && self.relations[other].field == rel.field
        };
        (1..self.relations.len()).any(same)
    }
}

/// How strings are altered before they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Form {
    /// Empty, `strip` or `replace`.
    pub nul: &'static str,
    pub nfc: bool,
}

impl Form {
    pub fn draw(rng: &mut Rng, has_text: bool) -> Self {
        let (nul, nfc) = (["", "", "strip", "replace"][rng.usize(..4)], rng.u8(..3) == 0);
        if has_text { Form { nul, nfc } } else { Form::default() }
    }

    /// The end of a column's table in the mapping.
    pub fn toml(&self) -> String {
        let nul = if self.nul.is_empty() { String::new() } else { format!(", nul = \"{}\"", self.nul) };
        format!("{nul}{}", if self.nfc { ", nfc = true" } else { "" })
    }

    /// A JSON text that is stored as the same value.
    pub fn respell(&self, mut text: String, rng: &mut Rng) -> String {
        if self.nfc && rng.bool() {
            for (composed, parts) in [("é", "e\u{301}"), ("í", "i\u{301}"), ("\\u00e9", "e\\u0301")] {
                text = text.replace(composed, parts);
            }
        }
        match self.nul {
            "strip" if rng.bool() => {
                // Behind the first quote, and before the last one: in a name or in a value.
                if let (Some(first), Some(last)) = (text.find('"'), text.rfind('"')) {
                    text.insert_str(last, "\\u0000\\u0000");
                    text.insert_str(first + 1, "\\u0000");
                }
            }
            "replace" if rng.bool() => {
                text = text.replace('\u{fffd}', "\\u0000").replace("\\ufffd", "\\u0000")
            }
            _ => {}
        }
        text
    }
}
