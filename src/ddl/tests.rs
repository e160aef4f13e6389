use super::*;

/// Every shape: no key, composite keys, no id, odd names, a map, a list in a list, catalogues of all kinds.
const MAPPING: &str = r#"
version = 1
name = "odd\nshop"

[root]
table = "sales.Order"
key = ["year", "number"]
columns = { year = "y", number = { path = "no", type = "varchar(6)" }, user = "u", note = "note", currency_id = { lookup = "currency", match = { code = "cur" } } }

[[root.children]]
name = "lines"
table = "sales.line"
parent = ["order_year", "order_number"]
key = ["no"]
id = "id"
columns = { no = "@index", extra = "extra", tag = { lookup = "tag", match = { label = "tag" } } }

[[root.children.children]]
name = "serials"
table = "serial"
parent = "line_id"
columns = { code = "." }

[[root.children.children]]
name = "rates"
table = "rate"
parent = "line_id"
key = ["currency"]
columns = { currency = "@key", rate = "." }

[[root.children.links]]
name = "tags"
table = "line_tag"
parent = "line_id"
target = "tag_id"
lookup = "tag"
match = { label = "label" }
columns = { weight = "w" }

[[root.children]]
name = "parcels"
table = "parcel"
parent = ["order_year", "order_number"]
key = ["barcode"]
unique_in = "all"
columns = { barcode = "barcode", sent = { path = "sent", zone = "Europe/Madrid" } }

[[root.children]]
name = "notes"
table = "note"
parent = ["order_year", "order_number"]
id = "note_id"
columns = { note_id = "id", text = "text" }

[lookups.tag]
table = "tag"
id = "id"
key = ["label"]
missing = "insert"
columns = { label = { path = "label", type = "varchar(9)" }, color = "color" }

[lookups.currency]
table = "currency"
id = "code"
key = ["code"]

[sync]
mark_hash = "hash"
mark_time = "seen"
"#;

const DOCUMENT: &str = r#"{"y": 2024, "no": "000001", "u": "ana", "cur": "EUR", "lines": [
    {"extra": {"a": 1}, "tag": "x", "serials": ["s"], "rates": {"EUR": 1.5}, "tags": [{"label": "x", "color": "red", "w": 1}]}],
    "parcels": [{"barcode": "b", "sent": "2024-05-31T10:00:00"}], "notes": [{"id": 7, "text": "t"}]}"#;

fn mapping() -> Mapping {
    Mapping::from_toml(MAPPING).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_shape_has_its_table() {
    let mapping = mapping();
    let mut sample = Sample::new(&mapping);
    sample.read(DOCUMENT.as_bytes()).unwrap();
    sample.read(b"[]").unwrap_err();
    let text = ddl(&mapping, Some(&sample), &[]).unwrap().to_string();
    assert_eq!(text, include_str!("every_shape.sql"));
}

#[test]
fn what_exists_is_left_out_and_gives_its_types() {
    let mapping = mapping();
    let existing = |schema: Option<&str>, table: &str, columns: &[(&str, &str)]| ExistingTable {
        name: TableName { schema: schema.map(str::to_owned), table: table.to_owned() },
        columns: columns.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect(),
    };
    let there = [
        existing(Some("sales"), "line", &[("id", "integer"), ("no", "bigint")]),
        existing(None, "tag", &[("id", "smallint"), ("label", "text")]),
    ];
    let mut sample = Sample::new(&mapping);
    sample.read(DOCUMENT.as_bytes()).unwrap();
    let made = ddl(&mapping, Some(&sample), &there).unwrap();
    let names: Vec<String> = made.tables().map(ToString::to_string).collect();
    assert_eq!(names, ["currency", "sales.Order", "serial", "rate", "parcel", "note", "line_tag"]);
    let text = made.to_string();
    for line in [
        "-- Left out, because the database has them: \"sales.line\", \"tag\".",
        "    line_id integer NOT NULL REFERENCES sales.line (id) ON DELETE CASCADE,",
        "    tag_id  smallint NOT NULL REFERENCES tag (id),",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let all: Vec<ExistingTable> = mapping
        .relations
        .iter()
        .map(|relation| &relation.table)
        .chain(mapping.lookups.iter().map(|lookup| &lookup.table))
        .map(|name| ExistingTable { name: name.clone(), columns: Vec::new() })
        .collect();
    let none = ddl(&mapping, None, &all).unwrap();
    assert_eq!(none.tables().count(), 0);
    assert!(none.to_string().ends_with("-- There is nothing to create.\n"));
}

#[test]
fn without_a_sample_every_column_that_has_no_type_is_named() {
    let DdlFaults(faults) = ddl(&mapping(), None, &[]).unwrap_err();
    let (places, messages): (Vec<&str>, Vec<&str>) =
        faults.iter().filter_map(|fault| fault.split_once(": ")).unzip();
    assert_eq!(
        places,
        [
            "lookups.tag.columns.color",
            "lookups.currency.columns.code",
            "root.columns.year",
            "root.columns.user",
            "root.columns.note",
            "children.lines.columns.extra",
            "children.serials.columns.code",
            "children.rates.columns.rate",
            "children.parcels.columns.barcode",
            "children.parcels.columns.sent",
            "children.notes.columns.note_id",
            "children.notes.columns.text",
            "links.tags.columns.weight",
        ]
    );
    assert_eq!(messages[0], "no type; give type = \"…\", or a feed to infer it from");
}

#[test]
fn a_key_of_lists_and_lookups_that_disagree_on_their_table_are_refused() {
    let text =
        MAPPING.replace("[sync]", "[lookups.color]\ntable = \"tag\"\nid = \"id\"\nkey = [\"color\"]\n[sync]");
    let mapping = Mapping::from_toml(&text).unwrap();
    let mut sample = Sample::new(&mapping);
    sample.read(DOCUMENT.replace("\"y\": 2024", "\"y\": [2024]").as_bytes()).unwrap();
    let faults = ddl(&mapping, Some(&sample), &[]).unwrap_err().to_string();
    assert_eq!(
        faults,
        "no tables can be made from the mapping:\
         \n  lookups.color: its table tag is that of \"tag\" with another id or key; give both the same, or create it by hand\
         \n  root.key: column \"year\" holds lists or objects, and cannot be part of a key; choose another key"
    );
}

#[test]
fn lookups_in_one_table_make_one_table() {
    let text = MAPPING.replace(
        "[sync]",
        "[lookups.again]\ntable = \"tag\"\nid = \"id\"\nkey = [\"label\"]\ncolumns = { size = { path = \"size\", type = \"int\" } }\n[sync]",
    );
    let mapping = Mapping::from_toml(&text).unwrap();
    let mut sample = Sample::new(&mapping);
    sample.read(DOCUMENT.as_bytes()).unwrap();
    let text = ddl(&mapping, Some(&sample), &[]).unwrap().to_string();
    let tag = "CREATE TABLE tag (\n    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    \
               label varchar(9) NOT NULL UNIQUE,\n    color text,\n    size  int\n);\n";
    assert!(text.contains(tag), "{text}");
}

#[test]
fn p11_p13_keys_that_may_be_null_places_and_alternate_keys_have_their_constraints() {
    let mapping = Mapping::from_toml(
        r#"
version = 1
name = "m"
[root]
table = "t"
key = ["a", "b"]
alternate_key = "uid"
id = "id"
columns = { a = { path = "a", type = "int", nullable = true }, b = { path = "b", type = "int" }, uid = { path = "u", type = "int" } }
[[root.children]]
name = "c"
table = "c"
parent = "t_id"
key = "k"
columns = { k = { path = "k", type = "text", nullable = true }, place = { position = 1 } }
"#,
    )
    .unwrap();
    let text = ddl(&mapping, None, &[]).unwrap().to_string();
    let tables = "
CREATE TABLE t (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    a   int,
    b   int NOT NULL,
    uid int UNIQUE,
    UNIQUE NULLS NOT DISTINCT (a, b)
);

-- Lists

CREATE TABLE c (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    t_id  bigint NOT NULL REFERENCES t (id) ON DELETE CASCADE,
    k     text,
    place bigint,
    UNIQUE NULLS NOT DISTINCT (t_id, k)
);
";
    assert!(text.ends_with(tables), "{text}");
}

#[test]
fn a_constant_has_its_type_without_a_feed() {
    let mapping = Mapping::from_toml(
        r#"
version = 1
name = "m"
[root]
table = "t"
key = ["origin", "k"]
[root.columns]
origin = { value = "bdns" }
k = { path = "k", type = "int" }
n = { value = 7 }
x = { value = 0.5 }
yes = { value = true }
day = { value = "2024-02-29" }
given = { value = "7", type = "smallint" }
"#,
    )
    .unwrap();
    let table = "
CREATE TABLE t (
    origin text NOT NULL,
    k      int NOT NULL,
    n      bigint,
    x      numeric,
    yes    boolean,
    day    date,
    given  smallint,
    PRIMARY KEY (origin, k)
);
";
    let mut sample = Sample::new(&mapping);
    sample.read(br#"{"k": 1}"#).unwrap();
    for sample in [None, Some(&sample)] {
        let text = ddl(&mapping, sample, &[]).unwrap().to_string();
        assert!(text.ends_with(table), "{text}");
    }
}
