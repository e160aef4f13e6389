//! A place in a document, seen from an item of it.
//!
//! Written `organo.nivel1`: dots go down, quotes protect a name that has a dot or
//! starts with a sign (`a."b.c"`). `.` alone is the item itself, `^` the
//! enclosing item (`^.name` a field of it, `^.^` the one around that), `@key` the
//! item's name in a map, `@index` its place in a list, counted from 0.

use serde::Serialize;

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// Down to the member of this name.
    Field(String),
    /// Up to the enclosing item. Only at the start of a path.
    Up,
    /// The item's name in the map that holds it. Only at the end of a path.
    Key,
    /// The item's place in the list that holds it, from 0. Only at the end of a path.
    Index,
}

/// A place in a document, seen from an item of it. Empty: the item itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// Parses the written form.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "." {
            return Ok(Self::default());
        }
        let names = split(text)?;
        let count = names.len();
        let mut segments = Vec::with_capacity(count);
        for (at, (name, quoted)) in names.into_iter().enumerate() {
            let segment = if quoted { Segment::Field(name) } else { segment(name, text)? };
            let starts = segments.iter().all(|before| *before == Segment::Up);
            match segment {
                Segment::Up if !starts => {
                    return Err(format!("`^` stands only at the start of a path: `{text}`"));
                }
                Segment::Key | Segment::Index if at + 1 != count || !starts => {
                    return Err(format!("`@key` and `@index` stand alone or after `^`: `{text}`"));
                }
                segment => segments.push(segment),
            }
        }
        Ok(Self(segments))
    }
}

fn segment(name: String, text: &str) -> Result<Segment, String> {
    match name.as_str() {
        "^" => Ok(Segment::Up),
        "@key" => Ok(Segment::Key),
        "@index" => Ok(Segment::Index),
        "" => Err(format!(
            "`{text}` has an empty name: leave a dot out, or quote it if the field has no name: `\"\"`"
        )),
        name if name.starts_with('@') => {
            Err(format!("unknown `{name}`: known are `@key` and `@index`; quote a name that starts with @"))
        }
        _ => Ok(Segment::Field(name)),
    }
}

/// Splits at dots outside quotes. The flag says whether the name was quoted.
pub(super) fn split(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, quoted, after) = match rest.strip_prefix('"') {
            Some(inner) => {
                let end =
                    inner.find('"').ok_or_else(|| format!("a quote is not closed, close it: `{text}`"))?;
                (&inner[..end], true, &inner[end + 1..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (&rest[..end], false, &rest[end..])
            }
        };
        names.push((name.to_owned(), quoted));
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(names),
            None => return Err(format!("a dot is missing after a quoted name: `{text}`")),
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match segment {
                Segment::Up => f.write_str("^")?,
                Segment::Key => f.write_str("@key")?,
                Segment::Index => f.write_str("@index")?,
                Segment::Field(name)
                    if name.is_empty() || name.contains('.') || name.starts_with(['@', '^', '"']) =>
                {
                    write!(f, "\"{name}\"")?;
                }
                Segment::Field(name) => f.write_str(name)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_paths_come_back_as_written() {
        for text in [".", "a", "organo.nivel1", "a.\"b.c\"", "^.x", "^.^.@index", "@key", "cve-list", "\"\""]
        {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn faulty_paths_are_refused() {
        for text in ["", "a..b", "a.^", "@key.x", "x.@index", "a.\"b", "\"a\"b", "@other"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
