//! Changed rows for people: a head, and a line for each column.
//!
//! ```text
//!   ~ files id=7
//!       name     draft.pdf -> final.pdf
//!   + tags
//!       word     red
//! ```

use std::io::IsTerminal as _;

use rowdelta::engine::changes::{Action, Values};
use rowdelta::engine::plan::CatalogueNames;
use similar::{ChangeTag, TextDiff};

/// Longer values are cut, unless all is asked for; longer texts of which words changed are shown as such.
const LETTERS_MAX: usize = 60;
/// Letters shown before the first that changed.
const CONTEXT_LETTERS: usize = 12;
/// Words shown around those that changed.
const CONTEXT_WORDS: usize = 4;

/// How a terminal is told of colours, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// Colours on a terminal, unless NO_COLOR is set to something.
    pub fn of_terminal() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(std::io::stdout().is_terminal() && !unwanted)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What stands out.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What does not.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn removed(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn added(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn action(self, action: Action, text: &str) -> String {
        let code = match action {
            Action::Added => "32",
            Action::Updated => "33",
            Action::Moved => "36",
            Action::Removed => "31",
        };
        self.paint(code, text)
    }
}

/// A changed row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'c> {
    pub action: Action,
    pub relation: &'c str,
    pub key: Option<&'c Values>,
    pub before: Option<&'c Values>,
    pub after: Option<&'c Values>,
    /// What its references are called.
    pub names: Option<&'c CatalogueNames>,
}

impl Row<'_> {
    /// Its head, and its columns: of a row that is written those that changed.
    pub fn words(&self, paint: Paint, full: bool) -> String {
        let sign = match self.action {
            Action::Added => "+",
            Action::Updated => "~",
            Action::Moved => ">",
            Action::Removed => "-",
        };
        let key = self.key.map_or(String::new(), |key| format!(" {}", self.named(key)));
        let mut text = format!("  {} {}{key}\n", paint.action(self.action, sign), self.relation);
        let lines = self.columns(paint, full);
        let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in lines {
            text += &format!("      {name:<width$}  {value}\n");
        }
        text
    }

    /// `number=N1 product_id=7 (pears)`
    fn named(&self, values: &Values) -> String {
        let word = |(name, value): (&str, Option<&str>)| {
            format!("{name}={}", cut(&quoted(self.called(name, value).as_deref()), false))
        };
        values.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// A value; of a reference with what it refers to.
    fn called(&self, column: &str, value: Option<&str>) -> Option<String> {
        let value = value?;
        let name = self.names.and_then(|names| names.get(self.relation, column, value));
        Some(name.map_or(value.to_owned(), |name| format!("{value} ({name})")))
    }

    fn columns(&self, paint: Paint, full: bool) -> Vec<(String, String)> {
        // What the head says already is not said again.
        let is_key = |name: &str| self.key.is_some_and(|key| key.get(name).is_some());
        match (self.before, self.after) {
            (Some(before), Some(after)) => {
                let pairs = after.iter().map(|(name, new)| (name, before.get(name).flatten(), new));
                let changed = pairs.filter(|(_, old, new)| old != new);
                let value = |(name, old, new): (&str, Option<&str>, Option<&str>)| {
                    let (old, new) = (self.called(name, old), self.called(name, new));
                    (name.to_owned(), changed_value(paint, full, old.as_deref(), new.as_deref()))
                };
                changed.map(value).collect()
            }
            (Some(one), None) | (None, Some(one)) => {
                let told = one.iter().filter(|(name, value)| !is_key(name) && value.is_some());
                let value = |(name, value): (&str, Option<&str>)| {
                    (name.to_owned(), cut(&quoted(self.called(name, value).as_deref()), full))
                };
                told.map(value).collect()
            }
            (None, None) => Vec::new(),
        }
    }
}

/// A value on one line: in quotes where its ends could not be seen otherwise, or it could be taken for none.
fn quoted(value: Option<&str>) -> String {
    let Some(text) = value else { return "NULL".to_owned() };
    let is_plain = !text.is_empty()
        && text != "NULL"
        && !text.contains(['"', '\\'])
        && !text.chars().any(char::is_control)
        && text.trim() == text;
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn cut(text: &str, full: bool) -> String {
    if full || text.chars().count() <= LETTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}

fn changed_value(paint: Paint, full: bool, old: Option<&str>, new: Option<&str>) -> String {
    if let (Some(old), Some(new)) = (old, new) {
        let is_long = old.chars().count().max(new.chars().count()) > LETTERS_MAX;
        if is_long && old.contains(' ') && new.contains(' ') {
            return by_words(paint, full, old, new);
        }
    }
    let (old, new) = (quoted(old), quoted(new));
    let same = if full { 0 } else { alike(&old, &new) };
    let (old, new) = (cut(&later(&old, same), full), cut(&later(&new, same), full));
    format!("{} -> {}", paint.removed(&old), paint.added(&new))
}

/// How many letters at the start of two long values need not be shown: all but a few of those that are the same.
fn alike(old: &str, new: &str) -> usize {
    let length = old.chars().count().max(new.chars().count());
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    if length <= LETTERS_MAX { 0 } else { same.saturating_sub(CONTEXT_LETTERS) }
}

/// A value without its first letters.
fn later(text: &str, from: usize) -> String {
    if from == 0 { text.to_owned() } else { ['…'].into_iter().chain(text.chars().skip(from)).collect() }
}

/// A long text with the words that came and went, and some around them: `… the [-brown-]{+red+} fox …`.
fn by_words(paint: Paint, full: bool, old: &str, new: &str) -> String {
    let (old, new) = (one_line(old), one_line(new));
    let diff = TextDiff::from_words(&old, &new);
    let mut parts: Vec<(ChangeTag, String)> = Vec::new();
    for change in diff.iter_all_changes() {
        match parts.last_mut() {
            Some((tag, text)) if *tag == change.tag() => text.push_str(change.value()),
            _ => parts.push((change.tag(), change.value().to_owned())),
        }
    }
    let last = parts.len().saturating_sub(1);
    let mut text = String::new();
    for (at, (tag, part)) in parts.iter().enumerate() {
        match tag {
            ChangeTag::Delete => text += &paint.removed(&format!("[-{}-]", cut(part, full))),
            ChangeTag::Insert => text += &paint.added(&format!("{{+{}+}}", cut(part, full))),
            ChangeTag::Equal if full => text += part,
            ChangeTag::Equal => text += &around(part, at == 0, at == last),
        }
    }
    text
}

/// What did not change, but for the words next to what did.
fn around(part: &str, is_first: bool, is_last: bool) -> String {
    let words: Vec<&str> = part.split_inclusive(' ').collect();
    // The blank after what changed is no word.
    let blank = usize::from(words.first() == Some(&" "));
    let before = if is_first { 0 } else { CONTEXT_WORDS + blank };
    let after = if is_last { 0 } else { CONTEXT_WORDS };
    if words.len() <= before + after + 1 {
        return part.to_owned();
    }
    let (start, end) = (words[..before].concat(), words[words.len() - after..].concat());
    format!("{start}… {end}").trim_end_matches(if is_last { " " } else { "" }).to_owned()
}

/// Control characters would spoil the lines.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        match letter {
            '\n' => line += "\\n ",
            letter if letter.is_control() => line += &letter.escape_default().to_string(),
            letter => line.push(letter),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, Option<&str>)]) -> Values {
        Values(pairs.iter().map(|(name, value)| ((*name).into(), value.map(str::to_owned))).collect())
    }

    #[test]
    fn a_changed_row_says_what_changed_and_a_new_one_what_it_holds() {
        let (key, before, after) = (
            values(&[("no", Some("7"))]),
            values(&[("name", Some("a b")), ("size", None), ("same", Some("x"))]),
            values(&[("name", Some("")), ("size", Some("12")), ("same", Some("x"))]),
        );
        let row = Row {
            action: Action::Updated,
            relation: "files",
            key: Some(&key),
            before: Some(&before),
            after: Some(&after),
            names: None,
        };
        let said = "  ~ files no=7\n      name  a b -> \"\"\n      size  NULL -> 12\n";
        assert_eq!(row.words(Paint(false), false), said);
        let new = values(&[("no", Some("7")), ("name", Some("x")), ("size", None)]);
        let row = Row { action: Action::Added, before: None, after: Some(&new), ..row };
        assert_eq!(row.words(Paint(false), false), "  + files no=7\n      name  x\n");
    }

    #[test]
    fn of_a_long_text_the_words_are_shown_that_changed() {
        let old = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen";
        let new = old.replace("eight", "EIGHT");
        let said = "… four five six seven [-eight-]{+EIGHT+} nine ten eleven twelve …";
        assert_eq!(changed_value(Paint(false), false, Some(old), Some(&new)), said);
        let full = changed_value(Paint(false), true, Some(old), Some(&new));
        assert_eq!(full, old.replace("eight", "[-eight-]{+EIGHT+}"));
    }

    #[test]
    fn of_long_values_that_begin_alike_it_is_shown_where_they_differ() {
        let old = format!("https://example.org/{}/9.0.309/sdk.zip", "x".repeat(60));
        let said = changed_value(Paint(false), false, Some(&old), Some(&old.replace("309", "310")));
        assert_eq!(said, "…xxxxxx/9.0.309/sdk.zip -> …xxxxxx/9.0.310/sdk.zip");
    }

    #[test]
    fn values_stay_on_their_line() {
        assert_eq!(quoted(Some("a\nb")), "\"a\\nb\"");
        assert_eq!((quoted(None), quoted(Some("NULL"))), ("NULL".into(), "\"NULL\"".into()));
        assert_eq!(cut(&"x".repeat(100), false).chars().count(), LETTERS_MAX);
    }
}
