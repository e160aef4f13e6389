//! Expected rows of a table: written as lines, matched with what is stored.

use std::collections::{BTreeMap, BTreeSet};

/// The rows of one table, cells as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Values that were in a column before the feed, by table and column.
pub type Before = BTreeMap<(String, String), BTreeSet<String>>;

/// What placeholders such as `$a` stand for.
pub type Bindings = BTreeMap<String, String>;

impl Rows {
    /// A line with the names of the columns, then one for each row; cells are separated by bars.
    pub fn parse(text: &str) -> Self {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).map(cells);
        Rows { columns: lines.next().unwrap_or_default(), rows: lines.collect() }
    }

    /// The cells of a query; NULL, the empty text and the text NULL are written so that they can be told apart.
    pub fn stored(columns: Vec<String>, rows: Vec<Vec<Option<String>>>) -> Self {
        let cell = |cell: Option<String>| match cell {
            None => "NULL".to_owned(),
            Some(text) if text.is_empty() || text == "NULL" => format!("'{text}'"),
            Some(text) => text,
        };
        let rows = rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect();
        Rows { columns, rows }
    }

    /// One line a row, sorted, below the names of the columns.
    pub fn lines(&self) -> String {
        let mut lines: Vec<String> = self.rows.iter().map(|row| row.join(" | ") + "\n").collect();
        lines.sort();
        self.columns.join(" | ") + "\n" + &lines.concat()
    }

    fn note(&self, table: &str, before: &mut Before) {
        for row in &self.rows {
            for (column, cell) in self.columns.iter().zip(row) {
                before.entry((table.to_owned(), column.clone())).or_default().insert(cell.clone());
            }
        }
    }
}

/// The values of all tables, by column.
pub fn values(tables: &BTreeMap<String, Rows>) -> Before {
    let mut before = Before::new();
    tables.iter().for_each(|(table, rows)| rows.note(table, &mut before));
    before
}

/// Whether tables can be what is expected of them, each placeholder standing for one value that is new in its
/// column. Rows are paired by trying: cases are small.
pub fn fits(expected: &BTreeMap<String, Rows>, found: &BTreeMap<String, Rows>, before: &Before) -> bool {
    let shape = |tables: &BTreeMap<String, Rows>| -> Vec<_> {
        let shape = |(name, rows): (&String, &Rows)| (name.clone(), rows.columns.clone(), rows.rows.len());
        tables.iter().map(shape).collect()
    };
    let row = |(table, rows): (&'_ String, &'_ Rows)| -> Vec<(String, Vec<String>)> {
        rows.rows.iter().map(|row| (table.clone(), row.clone())).collect()
    };
    let mut open: Vec<(String, Vec<String>)> = expected.iter().flat_map(row).collect();
    // Rows without placeholders first: they leave the least to try.
    open.sort_by_key(|(_, row)| row.iter().filter(|cell| cell.starts_with('$')).count());
    let left = found.iter().flat_map(row).map(Some).collect();
    shape(expected) == shape(found) && pair(&open, left, &Bindings::new(), &Fit { expected, before })
}

struct Fit<'a> {
    expected: &'a BTreeMap<String, Rows>,
    before: &'a Before,
}

fn pair(
    open: &[(String, Vec<String>)],
    mut left: Vec<Option<(String, Vec<String>)>>,
    bindings: &Bindings,
    fit: &Fit<'_>,
) -> bool {
    let Some(((table, row), rest)) = open.split_first() else { return true };
    for at in 0..left.len() {
        let Some(found) = left[at].take_if(|found| found.0 == *table) else { continue };
        let bound = fit.bind(table, row, &found.1, bindings);
        if bound.is_some_and(|bound| pair(rest, left.clone(), &bound, fit)) {
            return true;
        }
        left[at] = Some(found);
    }
    false
}

impl Fit<'_> {
    /// The bindings with those of one row; `None` where the row is another.
    fn bind(&self, table: &str, row: &[String], found: &[String], bindings: &Bindings) -> Option<Bindings> {
        let mut bindings = bindings.clone();
        for ((column, cell), found) in self.expected[table].columns.iter().zip(row).zip(found) {
            if !cell.starts_with('$') {
                if cell != found {
                    return None;
                }
                continue;
            }
            let known = self.before.get(&(table.to_owned(), column.clone()));
            let bound = bindings.entry(cell.clone()).or_insert_with(|| found.clone());
            if bound != found || found == "NULL" || known.is_some_and(|known| known.contains(found)) {
                return None;
            }
        }
        (row.len() == found.len()).then_some(bindings)
    }
}

#[test]
fn a_placeholder_stands_for_one_new_value_wherever_it_is() {
    let tables =
        |a: &str, b: &str| BTreeMap::from([("a".into(), Rows::parse(a)), ("b".into(), Rows::parse(b))]);
    let before = values(&tables("id\n1", "id|a\n5|1"));
    let expected = tables("id\n1\n$n", "id|a\n5|1\n$x|$n\n$y|$n");
    assert!(fits(&expected, &tables("id\n3\n1", "id|a\n7|3\n5|1\n6|3"), &before));
    assert!(!fits(&expected, &tables("id\n3\n1", "id|a\n7|3\n5|1\n6|1"), &before));
    assert!(!fits(&expected, &tables("id\n3\n1", "id|a\n7|3\n1|1\n6|3"), &before));
    let recreated = values(&tables("id\n1\n3", "id|a\n5|1"));
    assert!(!fits(&expected, &tables("id\n3\n1", "id|a\n7|3\n5|1\n6|3"), &recreated));
}
