//! The name of a type, as a mapping may give it.
//!
//! It becomes part of statements, so it has to be a name and nothing else: this
//! reads the shape of one, and the server says whether there is such a type.

use super::faults::Faults;
use super::tree::At;

/// What stands after the first word of the types that have several.
const FURTHER_WORDS: [&str; 16] = [
    "precision",
    "varying",
    "character",
    "char",
    "with",
    "without",
    "time",
    "zone",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "to",
    "array",
];

impl Faults {
    /// The type that the table at `at` gives under `type`, if it does.
    pub(super) fn type_name(&mut self, at: &At<'_>) -> Option<String> {
        let at = at.get("type")?;
        let text = self.text(&at)?;
        if Rest(&text).is_type_name() {
            return Some(text);
        }
        let mend = "write it as in SQL, such as numeric(10,2) or public.\"Color\"";
        self.add(&at.spot, format!("`{text}` is not the name of a type; {mend}"));
        None
    }
}

/// What is left of a text to read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// A name, perhaps qualified; then modifiers, brackets and the further words of a type, in any order.
    fn is_type_name(&mut self) -> bool {
        loop {
            if !self.name() {
                return false;
            }
            if !self.sign('.') {
                break;
            }
        }
        while !self.0.is_empty() {
            // What has begun must end as it should: nothing else is tried on the rest of it.
            let is_part = match self.0.as_bytes()[0] {
                b'(' => self.modifier(),
                b'[' => self.brackets(),
                _ => self.further_word(),
            };
            if !is_part {
                return false;
            }
        }
        true
    }

    /// `(10, 2)`
    fn modifier(&mut self) -> bool {
        if !self.sign('(') {
            return false;
        }
        loop {
            if self.run(char::is_alphanumeric).is_empty() {
                return false;
            }
            self.blanks();
            if !self.sign(',') {
                return self.sign(')');
            }
        }
    }

    /// `[]`
    fn brackets(&mut self) -> bool {
        self.sign('[') && {
            self.run(|letter| letter.is_ascii_digit());
            self.sign(']')
        }
    }

    fn further_word(&mut self) -> bool {
        let word = self.run(char::is_alphabetic);
        self.blanks();
        FURTHER_WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
    }

    /// A word, or anything in quotes.
    fn name(&mut self) -> bool {
        let found = match self.0.strip_prefix('"') {
            Some(quoted) => {
                self.0 = quoted;
                let is_plain = |letter: char| letter.is_alphanumeric() || "_. (),[]".contains(letter);
                !self.run(is_plain).is_empty() && self.sign('"')
            }
            None => {
                let starts = self.0.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
                starts && !self.run(|letter| letter.is_alphanumeric() || letter == '_').is_empty()
            }
        };
        self.blanks();
        found
    }

    /// Whether this sign comes next, which is taken then, and blanks after it.
    fn sign(&mut self, sign: char) -> bool {
        let Some(rest) = self.0.strip_prefix(sign) else { return false };
        self.0 = rest;
        self.blanks();
        true
    }

    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches(' ');
    }

    /// As many letters as there are of a kind.
    fn run(&mut self, is_one: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|letter| !is_one(letter)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_are_taken() {
        for text in [
            "text",
            "varchar(6)",
            "numeric(10, 2)",
            "double precision",
            "timestamp(3) with time zone",
            "interval day to second(3)",
            "character varying (5) [3][]",
            "int ARRAY",
            "public.\"My Color\"",
            "pg_catalog.int4",
            "geometry(Point,4326)",
            "país",
        ] {
            assert!(Rest(text).is_type_name(), "{text}");
        }
    }

    #[test]
    fn anything_more_than_a_name_is_not() {
        for text in [
            "",
            " ",
            "int; DROP TABLE t",
            "int -- no",
            "text NOT NULL",
            "text DEFAULT now()",
            "text, evil int",
            "text) , evil (int",
            "varchar(6",
            "varchar()",
            "varchar(6 time",
            "int[5 time",
            "int[",
            "\"open",
            "\"\"",
            "a.",
            "now()",
            "text PRIMARY KEY",
            "text\nNOT NULL",
            "6",
            "'text'",
            "int /* no */",
            "text COLLATE \"C\"",
        ] {
            assert!(!Rest(text).is_type_name(), "{text}");
        }
    }
}
