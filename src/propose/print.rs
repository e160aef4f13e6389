//! A draft as TOML, with the evidence as comments.

use std::fmt::{self, Write as _};

use super::Survey;
use super::draft::{Absent, Column, Draft, Link, Lookup, Relation};
use crate::mapping::Path;

/// Where comments are wrapped.
const WIDTH: usize = 100;

/// The whole file.
pub(super) fn toml(draft: &Draft, survey: &Survey) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for paragraph in head(survey) {
        comment(&mut text, &paragraph)?;
    }
    writeln!(text, "version = 1\nname = {}", quoted(&draft.name))?;
    relation(&mut text, &draft.root, "root", draft.absent)?;
    for lookup in &draft.lookups {
        print_lookup(&mut text, lookup)?;
    }
    Ok(text)
}

fn head(survey: &Survey) -> Vec<String> {
    let mut counts = plural(survey.documents(), "document");
    if survey.repeated() > 0 {
        write!(counts, " ({} more came again, the same)", number(survey.repeated())).unwrap_or_default();
    }
    if survey.passed_over() > 0 {
        write!(counts, " ({} more could not be read)", number(survey.passed_over())).unwrap_or_default();
    }
    vec![
        format!("Proposed by rowdelta init from {counts}; comments say what was seen."),
        "A sample proves nothing about what comes. Read this, rename what you like, then let `rowdelta schema` make \
         the tables and `rowdelta sync` fill them. What each key means: docs/mapping.md."
            .to_owned(),
    ]
}

fn relation(text: &mut String, relation: &Relation, place: &str, absent: Absent) -> fmt::Result {
    let is_root = relation.parent.is_empty();
    writeln!(text)?;
    relation.notes.iter().try_for_each(|note| comment(text, note))?;
    writeln!(text, "{}", if is_root { format!("[{place}]") } else { format!("[[{place}]]") })?;
    if is_root {
        writeln!(text, "table = {}\nkey = {}", quoted(&relation.table), names(&relation.key))?;
        absent_columns(text, absent)?;
    } else {
        inner_keys(text, relation, absent)?;
    }
    if !relation.columns.is_empty() {
        writeln!(text, "\n[{place}.columns]")?;
        relation.columns.iter().try_for_each(|each| column(text, each, true))?;
    }
    relation.inner.iter().try_for_each(|inner| {
        let list = if inner.link.is_some() { "links" } else { "children" };
        self::relation(text, inner, &format!("{place}.{list}"), absent)
    })
}

/// The keys of a child or link, but for its columns.
fn inner_keys(text: &mut String, relation: &Relation, absent: Absent) -> fmt::Result {
    writeln!(text, "name = {}", quoted(&relation.name))?;
    let path = relation.path.to_string();
    if path != relation.name {
        writeln!(text, "path = {}", quoted(&path))?;
    }
    writeln!(text, "table = {}", quoted(&relation.table))?;
    writeln!(text, "parent = {}", one_or_list(&relation.parent))?;
    if let Some(link) = &relation.link {
        link_keys(text, link)?;
    }
    if !relation.key.is_empty() {
        writeln!(text, "key = {}", names(&relation.key))?;
    }
    if relation.unique_in_all {
        writeln!(text, "unique_in = \"all\"")?;
    }
    if let Some(id) = &relation.id {
        writeln!(text, "id = {}", quoted(id))?;
    }
    if relation.single {
        writeln!(text, "when_single = \"item\"")?;
    }
    match absent {
        Absent::Nothing(_) => writeln!(text, "when_absent = \"empty\""),
        Absent::Never | Absent::Unclear(..) => Ok(()),
    }
}

fn link_keys(text: &mut String, link: &Link) -> fmt::Result {
    writeln!(text, "target = {}\nlookup = {}", quoted(&link.target), quoted(&link.lookup))?;
    let pair = |(name, path): &(String, Path)| format!("{} = {}", key(name), quoted(&path.to_string()));
    let pairs: Vec<String> = link.matching.iter().map(pair).collect();
    writeln!(text, "match = {{ {} }}", pairs.join(", "))
}

/// What fields that are not there mean, and why.
fn absent_columns(text: &mut String, absent: Absent) -> fmt::Result {
    match absent {
        Absent::Never => Ok(()),
        Absent::Nothing(count) => {
            let count = plural(count, "time");
            comment(
                text,
                &format!(
                    "Fields are absent {count}, and not null instead: absent is taken for \"no value\", here and \
                     in each when_absent below. If documents may be partial, so that what they leave out is to \
                     stay as it is stored, remove these lines."
                ),
            )?;
            writeln!(text, "absent_columns = \"null\"")
        }
        Absent::Unclear(absent, nulls) => comment(
            text,
            &format!(
                "Fields are absent {}, and the same are null {}. Absent is taken for \"not said\": what is stored \
                 stays. If it means \"no value\", add absent_columns = \"null\" here, and when_absent = \"empty\" \
                 to each list.",
                plural(absent, "time"),
                plural(nulls, "time")
            ),
        ),
    }
}

fn print_lookup(text: &mut String, lookup: &Lookup) -> fmt::Result {
    writeln!(text, "\n[lookups.{}]", key(&lookup.name))?;
    writeln!(text, "table = {}\nid = {}", quoted(&lookup.table), quoted(&lookup.id))?;
    let columns: Vec<String> = lookup.columns.iter().map(|column| column.name.clone()).collect();
    writeln!(text, "key = {}\nmissing = \"insert\"", names(&columns))?;
    writeln!(text, "\n[lookups.{}.columns]", key(&lookup.name))?;
    lookup.columns.iter().try_for_each(|each| column(text, each, false))
}

fn column(text: &mut String, column: &Column, with_path: bool) -> fmt::Result {
    write!(text, "{} = {{ ", key(&column.name))?;
    if with_path {
        write!(text, "path = {}, ", quoted(&column.path.to_string()))?;
    }
    write!(text, "type = {}", quoted(column.ty))?;
    if column.nul {
        write!(text, ", nul = \"strip\"")?;
    }
    text.push_str(" }");
    match column.notes.as_slice() {
        [] => writeln!(text),
        notes => writeln!(text, "  # {}", notes.join("; ")),
    }
}

/// A comment, wrapped.
fn comment(text: &mut String, said: &str) -> fmt::Result {
    let mut line = String::from("#");
    for word in said.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > 1 {
            writeln!(text, "{}", printable(&line))?;
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(text, "{}", printable(&line))
}

/// Control characters, which names may have, would end a comment.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A string of TOML. Those of JSON are, but for one letter.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A key of TOML.
fn key(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn names(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
}

fn one_or_list(all: &[String]) -> String {
    if let [one] = all { quoted(one) } else { names(all) }
}

/// Some of these in words, each in back quotes.
pub(super) fn quoted_list(names: &[String], most: usize) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    list_of(&names, most)
}

/// Some of these in words: `a, b and 3 more`.
pub(super) fn list_of(names: &[String], most: usize) -> String {
    if names.len() > most {
        return format!("{} and {} more", names[..most].join(", "), number((names.len() - most) as u64));
    }
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// `1 document`, `8,776 documents`
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A count with commas between thousands.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
