//! Documents of which nothing is known yet → a mapping for them, as TOML, with the evidence as comments.
//!
//! A [`Survey`] reads the documents once and remembers, of each place in them, what was
//! there and whether it repeats; [`propose`] decides from that. Whatever it proposes
//! parses, and takes the documents that it was made from; where a guess that turns out
//! wrong would fail a document some night, the cautious form is taken:
//!
//! | seen | proposed |
//! |---|---|
//! | a field with a value in each document, no two alike | the root's key; names such as `id`, `codigo`, `number` first |
//! | an object | its fields, as columns |
//! | a list of objects, or of scalars | a child; lists inside it are its children |
//! | … in which few different items come again and again | a link, and a catalogue whose key is the whole item |
//! | … whose items have a field, named like a key, that is never twice in a list | that key, per parent |
//! | … and that is a number or uuid, never twice in a thousand items | `unique_in = "all"` |
//! | … without any | no key: rows are told apart by content |
//! | an object whose members' names are data | a child with `@key` |
//! | scalars of several kinds | a column of `text` |
//! | anything else, or nothing at all | a column of `jsonb`, which takes whatever comes |
//!
//! Types of scalars are those of [`crate::sample`]. The same documents give the same text.
//!
//! ```
//! use rowdelta::Mapping;
//! use rowdelta::propose::{Options, Survey, propose};
//!
//! let mut survey = Survey::new();
//! survey.read(br#"{"number": "A1", "customer": {"name": "Ana"}, "lines": [{"sku": "a", "qty": 1}]}"#)?;
//! survey.read(br#"{"number": "A2", "customer": null, "lines": []}"#)?;
//! let text = propose(survey, &Options::named("orders"))?;
//! let mapping = Mapping::from_toml(&text)?;
//! assert_eq!(mapping.root().key, ["number"]);
//! assert_eq!(mapping.relations[1].table.to_string(), "orders_lines");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalogue;
mod columns;
mod distinct;
mod draft;
mod fields;
mod keys;
mod names;
mod node;
mod print;
mod relations;
mod settle;
mod survey;
#[cfg(test)]
mod tests;

pub use survey::Survey;

/// What is decided already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The mapping's name.
    pub name: String,
    /// The root's table, with its schema or without; the other tables' names begin with it.
    pub table: String,
    /// Paths of the fields that are the root's key. Empty: it is looked for.
    pub key: Vec<String>,
}

impl Options {
    /// A name for mapping and table; the key is looked for.
    pub fn named(name: &str) -> Self {
        Options { name: name.to_owned(), table: name.to_owned(), key: Vec::new() }
    }
}

/// Why there is no mapping to propose, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposeError(pub String);

impl std::fmt::Display for ProposeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProposeError {}

/// Proposes a mapping for the documents that were surveyed, as TOML.
///
/// # Errors
/// There is no document, or no key to tell them apart; or the table's name is too long.
pub fn propose(mut survey: Survey, options: &Options) -> Result<String, ProposeError> {
    if survey.documents() == 0 {
        return Err(ProposeError("there are no documents to propose a mapping from".into()));
    }
    if let Some(name) = options.table.split('.').find(|name| name.len() > names::NAME_BYTES_MAX) {
        return Err(ProposeError(format!(
            "the name {name:?} of the table is longer than the {} bytes that PostgreSQL keeps of it",
            names::NAME_BYTES_MAX
        )));
    }
    survey.root.settle();
    let draft = relations::draft(&survey, options)?;
    print::toml(&draft, &survey).map_err(|error| ProposeError(error.to_string()))
}

/// A name for a mapping and its table, made of what a feed's file is called, say: `releases` of `Releases-2026-01-13`.
pub fn name_from(text: &str) -> String {
    let mut words = names::words(text);
    while words.len() > 1 && words.last().is_some_and(|word| word.chars().all(|letter| letter.is_numeric())) {
        words.pop();
    }
    names::cut(&names::snake(&words.join(" "), "documents"), names::NAME_BYTES_MAX).to_owned()
}
