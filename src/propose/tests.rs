//! What is proposed for what, without a database.

use super::*;
use crate::mapping::{Mapping, Relation, RelationKind, UniqueIn};

/// The mapping's text for some documents.
fn proposed(documents: &[String], options: &Options) -> Result<String, ProposeError> {
    let mut survey = Survey::new();
    for document in documents {
        survey.read(document.as_bytes()).unwrap();
    }
    propose(survey, options)
}

fn text(documents: &[String]) -> String {
    let text = proposed(documents, &Options::named("t")).unwrap_or_else(|error| panic!("{error}"));
    Mapping::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    text
}

/// Documents with an id and these members, each made of the number of its document.
fn documents(count: u64, members: impl Fn(u64) -> String) -> Vec<String> {
    (0..count).map(|n| format!("{{\"id\": {n}, {}}}", members(n))).collect()
}

/// The relations proposed for these documents beyond the root.
fn relations(documents: &[String]) -> Vec<Relation> {
    Mapping::from_toml(&text(documents)).unwrap().relations.split_off(1)
}

/// The line of a column.
fn column(documents: &[String], name: &str) -> String {
    let text = text(documents);
    let line = text.lines().find(|line| line.starts_with(&format!("{name} = {{")));
    line.unwrap_or_else(|| panic!("no {name}\n{text}")).to_owned()
}

#[test]
fn a_small_feed_has_the_mapping_that_a_person_would_write() {
    let documents: Vec<String> = include_str!("orders.ndjson").lines().map(str::to_owned).collect();
    let proposed = proposed(&documents, &Options::named("orders")).unwrap();
    assert_eq!(proposed, include_str!("orders.toml"));
}

#[test]
fn the_key_is_a_field_that_sounds_like_one_and_never_repeats() {
    let key = |documents: &[&str]| {
        let documents: Vec<String> = documents.iter().map(|text| (*text).to_owned()).collect();
        proposed(&documents, &Options::named("t"))
            .map(|text| Mapping::from_toml(&text).unwrap().root().key.clone())
    };
    let cases: &[(&[&str], &str)] = &[
        (&[r#"{"title": "a", "codigo": "1"}"#, r#"{"title": "b", "codigo": "2"}"#], "codigo"),
        (&[r#"{"codigo": "1", "id": 1}"#, r#"{"codigo": "1", "id": 2}"#], "id"),
        (&[r#"{"x": {"id": 1}, "title": "a"}"#, r#"{"x": {"id": 2}, "title": "a"}"#], "x_id"),
        (&[r#"{"customer": {"id": 1}, "number": 7}"#, r#"{"customer": {"id": 2}, "number": 8}"#], "number"),
        // The same document again is no second one, whatever the order of its members.
        (&[r#"{"id": 1, "l": [1, 2]}"#, r#"{"l": [2, 1], "id": 1}"#, r#"{"id": 2}"#], "id"),
    ];
    for (documents, expected) in cases {
        assert_eq!(key(documents).unwrap(), [*expected], "{documents:?}");
    }
    // A boolean, a fraction, a long text are none; nor is a uuid that is only spelled otherwise.
    let long = format!(r#"{{"id": "{}"}}"#, "x".repeat(300));
    let uuid = [
        r#"{"id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "n": 1}"#,
        r#"{"id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "n": 1}"#,
    ];
    let mixed = [r#"{"id": "1.50"}"#, r#"{"id": 1.5}"#];
    for documents in [&[r#"{"id": true}"#][..], &[r#"{"id": 1.5}"#], &[&long], &uuid, &mixed] {
        assert!(key(documents).unwrap_err().to_string().contains("--key"), "{documents:?}");
    }
}

#[test]
fn the_answer_of_an_api_is_told_from_a_document() {
    let answer = r#"{"total": 2, "page": {"rows": [{"id": 1}, {"id": 2}]}, "tags": ["a"]}"#.to_owned();
    let error = proposed(&[answer], &Options::named("t")).unwrap_err().to_string();
    assert_eq!(
        error,
        "one document alone does not show its key; if the documents are the 2 items of `page.rows`, let those be the \
         feed:\n  jq -c '.page.rows[]' FILE | rowdelta init -"
    );
}

#[test]
fn a_key_of_items_takes_as_much_evidence_as_its_name_lacks() {
    let lists = |field: &str, count: u64| {
        let documents = documents(count, |n| {
            format!(r#""l": [{{"{field}": {}, "x": "a"}}, {{"{field}": {}, "x": "b{n}"}}]"#, n % 3, n % 3 + 1)
        });
        relations(&documents)[0].key.clone()
    };
    for (field, few, enough) in [("id", 1, 2), ("sku", 9, 10), ("name", 49, 50)] {
        assert_eq!(lists(field, few), [""; 0], "{field}");
        assert_eq!(lists(field, enough), [field], "{field}");
    }
    assert_eq!(lists("thing", 500), [""; 0]);
}

#[test]
fn a_key_is_unique_in_all_only_where_a_thousand_items_say_so() {
    let lists = |count: u64, id: fn(u64) -> String| {
        let item = move |n: u64| format!(r#"{{"id": {}, "x": {n}}}"#, id(n));
        let documents = documents(count, |n| format!(r#""l": [{}, {}]"#, item(2 * n), item(2 * n + 1)));
        relations(&documents)[0].clone()
    };
    assert_eq!(lists(499, |n| n.to_string()).unique_in, UniqueIn::Parent);
    assert_eq!(lists(500, |n| n.to_string()).unique_in, UniqueIn::All);
    // Text may be given twice; one number was.
    assert_eq!(lists(600, |n| format!("\"{n}\"")).unique_in, UniqueIn::Parent);
    assert_eq!(lists(600, |n| (n % 1199).to_string()).unique_in, UniqueIn::Parent);
}

#[test]
fn items_that_come_again_and_again_are_a_catalogue() {
    let kind = |item: fn(u64) -> String| {
        let documents = documents(20, |n| format!(r#""l": [{}, {}]"#, item(n), item(n + 1)));
        relations(&documents)[0].kind
    };
    assert_eq!(kind(|n| format!("\"{}\"", n % 4)), RelationKind::Link);
    assert_eq!(
        kind(|n| format!(r#"{{"code": {}, "text": {{"en": "t{}"}}}}"#, n % 4, n % 4)),
        RelationKind::Link
    );
    // Numbers are no names of things; what is mostly new is not closed; nor may a value be missing.
    let numbers = documents(20, |n| format!(r#""l": [{}{}]"#, n % 4, if n % 2 == 0 { ", 7" } else { "" }));
    assert_eq!(relations(&numbers)[0].kind, RelationKind::Child);
    assert_eq!(kind(|n| format!("\"{n}\"")), RelationKind::Child);
    assert_eq!(kind(|n| format!(r#"{{"code": "{}", "text": null}}"#, n % 4)), RelationKind::Child);
    let twice = documents(20, |_| r#""l": ["a", "a"]"#.to_owned());
    assert!(relations(&twice)[0].key.is_empty(), "two equal rows are two");
}

#[test]
fn objects_whose_names_are_data_are_maps() {
    let relation = |member: fn(u64) -> String| {
        let documents = documents(12, |n| format!(r#""m": {{{}}}"#, member(n)));
        relations(&documents).first().map(|relation| (relation.name.clone(), relation.columns.len()))
    };
    let map = |columns| Some(("m".to_owned(), columns));
    assert_eq!(relation(|n| format!(r#""{}": 1.5"#, 2000 + n)), map(2));
    assert_eq!(relation(|n| format!(r#""k{n}": {{"a": 1, "b": 2}}"#)), map(3));
    assert_eq!(relation(|n| format!(r#""k{n}": [1]"#)), map(2));
    assert_eq!(relation(|_| r#""a": 1, "b": 2"#.to_owned()), None);
    // Of several kinds: fields that are seldom there.
    assert_eq!(relation(|n| format!(r#""k{n}": {}"#, if n % 2 == 0 { "1" } else { "\"x\"" })), None);
}

#[test]
fn what_has_no_columns_is_kept_whole() {
    let cases: &[(&[&str], &str)] = &[
        (&["null"], "never a value: jsonb takes whatever comes"),
        (&["[]"], "only empty lists: jsonb takes whatever comes"),
        (&["{}"], "only empty objects: jsonb takes whatever comes"),
        (&["1", "{\"a\": 1}"], "plain values and objects"),
        (&["[[1]]"], "lists of what has no columns: whole, in their order"),
        (&["[1, 2.5]", "[]", "[3, 4]"], "2 numbers each: whole, in their order"),
        (&["[1, {\"a\": 1}]"], "lists of what has no columns: whole, in their order"),
        (&["[{\"a\": [1]}]"], "lists of what has no columns: whole, in their order"),
    ];
    for (values, note) in cases {
        let documents = documents(6, |n| format!("\"v\": {}", values[n as usize % values.len()]));
        let line = column(&documents, "v");
        assert_eq!(
            line,
            format!("v = {{ path = \"v\", type = \"jsonb\" }}  # {note}").replace("; null in 2", "")
        );
    }
    let several = documents(3, |n| format!("\"v\": {}", ["1", "\"x\"", "true"][n as usize]));
    assert_eq!(
        column(&several, "v"),
        "v = { path = \"v\", type = \"text\" }  # strings, numbers and booleans"
    );
    let nul = documents(1, |_| r#""v": "a\u0000""#.to_owned());
    assert_eq!(
        column(&nul, "v"),
        "v = { path = \"v\", type = \"text\", nul = \"strip\" }  # U+0000 in it, which PostgreSQL cannot store, is left out"
    );
}

#[test]
fn absent_means_nothing_unless_null_does_too() {
    let root = |members: fn(u64) -> String| {
        let text = text(&documents(20, members));
        let (_, rest) = text.split_once("key = [\"id\"]\n").unwrap();
        rest.split_once("\n[root.columns]").unwrap().0.to_owned()
    };
    assert_eq!(root(|_| "\"a\": null".to_owned()), "");
    let absent = |n: u64| if n % 2 == 0 { "\"a\": 1".to_owned() } else { "\"b\": 1".to_owned() };
    assert!(root(absent).ends_with("absent_columns = \"null\"\n"));
    let unclear = |n: u64| ["\"a\": 1", "\"a\": null", "\"b\": 1", "\"b\": null"][n as usize % 4].to_owned();
    let said = root(unclear);
    assert!(said.starts_with("# Fields are absent 20 times, and the same are null 10 times."), "{said}");
}

#[test]
fn names_that_no_path_can_say_are_left_out_and_said() {
    let documents = documents(1, |_| r#""a.\"b": 1, "a\nb": 2, "A-B": 3, "aB": 4"#.to_owned());
    let text = text(&documents);
    assert!(text.contains("# Left out, because no path can name them:"), "{text}");
    for line in [
        "a_b = { path = \"a\\nb\", type = \"bigint\" }",
        "a_b_2 = { path = \"A-B\", type = \"bigint\" }",
        "a_b_3 = { path = \"aB\", type = \"bigint\" }",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn lists_in_lists_have_ids_that_no_field_has() {
    let documents = documents(3, |n| {
        format!(r#""l": [{{"id": 1, "m": [{{"id": "x{n}"}}]}}, {{"id": 1, "m": [{{"id": null}}]}}]"#)
    });
    let relations = relations(&documents);
    let ids: Vec<_> = relations.iter().map(|relation| relation.id.as_deref()).collect();
    assert_eq!(ids, [Some("row_id"), Some("row_id")]);
    assert_eq!(relations[1].parent, ["l_row_id"]);
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_is_said() {
    let mut survey = Survey::new();
    survey.tally.bits = 3;
    for document in documents(300, |n| format!(r#""code": {}"#, n % 150)) {
        survey.read(document.as_bytes()).unwrap();
    }
    assert!(survey.tally.hashes < 300, "{}", survey.tally.hashes);
    let text = propose(survey, &Options::named("t")).unwrap();
    assert!(
        text.contains(
            "# Key: 300 of 300 documents have `id`, all different as far as compared (one value in 8).\n"
        ),
        "{text}"
    );
    // Names without end: an object of them is a map, or whole; the root's are left out beyond some number.
    let many = documents(1, |_| (0..600).map(|n| format!("\"x{n}\": 1")).collect::<Vec<_>>().join(", "));
    let text = self::text(&many);
    assert!(text.contains("# Left out: 101 values of more than 500 fields.\n"), "{text}");
    let below = documents(1, |_| {
        format!("\"o\": {{{}}}", (0..600).map(|n| format!("\"x{n}\": 1")).collect::<Vec<_>>().join(", "))
    });
    assert!(column(&below, "o").ends_with("# objects with too many names for columns"));
}

#[test]
fn names_of_tables_are_never_cut_by_the_server() {
    let long = "ñ".repeat(32);
    let documents = documents(1, |_| r#""l": [1]"#.to_owned());
    let error = proposed(&documents, &Options::named(&long)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("the name {long:?} of the table is longer than the 63 bytes that PostgreSQL keeps of it")
    );
    assert_eq!(name_from(&long).len(), 62);
    let mapping =
        Mapping::from_toml(&proposed(&documents, &Options::named(&name_from(&long))).unwrap()).unwrap();
    assert!(mapping.relations.iter().all(|relation| relation.table.table.len() <= 63));
    assert_ne!(mapping.relations[0].table, mapping.relations[1].table);
}

#[test]
fn names_of_files_are_names_without_their_dates() {
    for (file, name) in [
        ("releases-2026-01-13", "releases"),
        ("night-1", "night"),
        ("realAll", "real_all"),
        ("2024", "_2024"),
        ("", "documents"),
    ] {
        assert_eq!(name_from(file), name);
    }
}
