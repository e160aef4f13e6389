//! Names of tables and columns, made of those that documents use.

use std::collections::HashSet;

/// PostgreSQL cuts longer names.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// Columns that every table has already.
const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// The words of a name, in small letters: `codigoBDNS` → `codigo`, `bdns`.
pub(super) fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let starts = letter.is_uppercase()
            && before.is_some_and(|before| {
                let next_is_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
                !before.is_uppercase() || next_is_small
            });
        if starts || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().unwrap_or(&mut String::new()).extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A name in small letters, with `_` between words; at least one letter.
pub(super) fn snake(name: &str, otherwise: &str) -> String {
    let name = words(name).join("_");
    match name.chars().next() {
        None => otherwise.to_owned(),
        Some(first) if first.is_numeric() => format!("_{name}"),
        Some(_) => name,
    }
}

/// Names given out so far, no two the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The name, or one like it that is not given out yet and that PostgreSQL does not cut.
    pub fn give(&mut self, name: &str) -> String {
        let mut given = cut(name, NAME_BYTES_MAX).to_owned();
        let mut count = 1;
        while self.is_given(&given) {
            count += 1;
            let suffix = format!("_{count}");
            given = cut(name, NAME_BYTES_MAX - suffix.len()).to_owned() + &suffix;
        }
        self.0.insert(given.clone());
        given
    }

    /// Whether a name cannot be had any more.
    pub fn is_given(&self, name: &str) -> bool {
        self.0.contains(name) || SYSTEM.contains(&name)
    }
}

/// As much of a name as fits.
pub(super) fn cut(name: &str, bytes_max: usize) -> &str {
    let mut end = name.len().min(bytes_max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Whether a member's name is a value rather than a field's name: a number, a date, a uuid, a code such as `EUR`, what
/// has signs in it that names do not have.
pub(super) fn is_data(name: &str) -> bool {
    let all = |test: fn(char) -> bool| !name.is_empty() && name.chars().all(test);
    let is_number = all(|letter| letter.is_ascii_digit() || "-./:T".contains(letter));
    let is_code = (2..=3).contains(&name.len()) && all(|letter| letter.is_ascii_uppercase());
    let is_hash = name.len() >= 16 && all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    // A sign at the front is a convention: `@id`, `$ref`.
    is_number || is_code || is_hash || name.contains('/') || name.rfind('@').is_some_and(|at| at > 0)
}

/// How much a name sounds like that of a key: 0 most, 3 not at all.
pub(super) fn key_class(name: &str) -> u8 {
    const KEYS: &[&str] = &[
        "clave",
        "cod",
        "code",
        "codigo",
        "cif",
        "dni",
        "ean",
        "expediente",
        "guid",
        "iban",
        "id",
        "identificador",
        "identifier",
        "isbn",
        "key",
        "nif",
        "nr",
        "num",
        "number",
        "numero",
        "ref",
        "reference",
        "referencia",
        "sku",
        "slug",
        "uuid",
        "código",
        "número",
    ];
    const NAMES: &[&str] = &[
        "country", "currency", "date", "day", "email", "fecha", "index", "lang", "language", "locale",
        "month", "name", "no", "nombre", "orden", "path", "position", "tipo", "title", "titulo", "type",
        "uri", "url", "version", "year",
    ];
    let words = words(name);
    let is_any = |word: Option<&String>, of: &[&str]| word.is_some_and(|word| of.contains(&word.as_str()));
    match words.as_slice() {
        [only] if ["id", "guid", "uuid"].contains(&only.as_str()) => 0,
        _ if is_any(words.first(), KEYS) || is_any(words.last(), KEYS) => 1,
        [.., _, last] if last == "no" => 1,
        _ if is_any(words.last(), NAMES) => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_a_person_would_end_them() {
        for (name, snaked) in [
            ("codigoBDNS", "codigo_bdns"),
            ("HTMLText", "html_text"),
            ("cve-list", "cve_list"),
            ("nivel1", "nivel1"),
            ("sha256Sum", "sha256_sum"),
            ("a  b", "a_b"),
            ("Año", "año"),
            ("1st", "_1st"),
            ("@$", "value"),
            ("", "value"),
        ] {
            assert_eq!(snake(name, "value"), snaked);
        }
    }

    #[test]
    fn names_are_given_once_and_are_never_cut() {
        let mut names = Names::default();
        assert_eq!([names.give("a"), names.give("a"), names.give("a")], ["a", "a_2", "a_3"]);
        assert_eq!(names.give("ctid"), "ctid_2");
        let long = "ñ".repeat(40);
        let (first, second) = (names.give(&long), names.give(&long));
        assert_eq!((first.as_str(), first.len()), ("ñ".repeat(31).as_str(), 62));
        assert_eq!((second.as_str(), second.len()), (format!("{}_2", "ñ".repeat(30)).as_str(), 62));
    }

    #[test]
    fn names_that_are_values_are_told_from_names_of_fields() {
        for name in ["1", "2024-05-31", "EUR", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a@b.c", "/x"] {
            assert!(is_data(name), "{name}");
        }
        for name in ["", "id", "nivel1", "x-y", "ABCD", "_1", "a b", "@id", "dc:title"] {
            assert!(!is_data(name), "{name}");
        }
    }

    #[test]
    fn names_sound_like_keys_or_not() {
        for (name, class) in [
            ("id", 0),
            ("_id", 0),
            ("UUID", 0),
            ("codigoBDNS", 1),
            ("numAnuncio", 1),
            ("order-number", 1),
            ("line_no", 1),
            ("no", 2),
            ("channel-version", 2),
            ("descripcion", 3),
            ("paid", 3),
            ("", 3),
        ] {
            assert_eq!(key_class(name), class, "{name}");
        }
    }
}
