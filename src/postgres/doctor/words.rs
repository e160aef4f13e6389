//! Numbers and names in words.

use crate::postgres::catalog::SurveyedTable;
use crate::postgres::quote;

/// A number for people: `1,234,567`.
pub fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people: `8.0 KiB`.
pub fn size(bytes: i64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

/// Rows, as the server estimates them.
pub(super) fn rows(estimate: Option<i64>) -> String {
    match estimate {
        Some(1) => "1 row".to_owned(),
        Some(rows) => format!("{} rows", count(rows)),
        None => "rows that nobody counted yet".to_owned(),
    }
}

/// `(a, "B")`, as a statement has it.
pub(super) fn list(columns: &[String]) -> String {
    format!("({})", columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", "))
}

/// The statement that makes an index, which stops no writer where the server can do that.
pub(super) fn create_index(table: &str, is_partitioned: bool, is_unique: bool, columns: &[String]) -> String {
    let unique = if is_unique { "UNIQUE " } else { "" };
    let concurrently = if is_partitioned { "" } else { "CONCURRENTLY " };
    format!("CREATE {unique}INDEX {concurrently}ON {table} {}", list(columns))
}

/// What the statement of [`create_index`] does to others, where it is not nothing.
pub(super) fn index_caution(table: &SurveyedTable) -> Option<&'static str> {
    table.is_partitioned().then_some("a partitioned table cannot have it made CONCURRENTLY: writers wait")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(count(number), text);
        }
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (8192, "8.0 KiB"), (3 << 40, "3.0 TiB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
