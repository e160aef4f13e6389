use serde_json::json;

use super::*;
use crate::mapping::{
    Missing, OnAbsent, OnDuplicate, RelationKind, Source, TableName, UniqueIn, WhenAbsent, WhenNull,
};

const HEAD: &str = "version = 1\nname = \"m\"\n";

/// The mapping with this after its head, which takes two lines.
fn parse(rest: &str) -> Mapping {
    Mapping::from_toml(&format!("{HEAD}{rest}")).unwrap_or_else(|error| panic!("{error}"))
}

fn faults(rest: &str) -> Vec<String> {
    let error = Mapping::from_toml(&format!("{HEAD}{rest}")).expect_err(rest);
    error.faults.iter().map(ToString::to_string).collect()
}

/// A root with its key, then `rest` from line 6.
fn rooted(rest: &str) -> String {
    format!("[root]\ntable = \"t\"\nkey = \"a\"\ncolumns = {{ a = \"a\", b = \"b\" }}\n{rest}")
}

/// A child with its key in lines 7 to 11, then `rest` from line 12.
fn with_child(rest: &str) -> String {
    rooted(&format!(
        "[[root.children]]\nname = \"c\"\ntable = \"c\"\nparent = \"t_a\"\ncolumns = {{ x = \"x\", y = \"y\" }}\n{rest}"
    ))
}

fn mapped(paths: &[&str]) -> Source {
    let paths = paths.iter().map(|path| crate::mapping::Path::parse(path).unwrap()).collect();
    Source::Path { paths, zone: None }
}

fn absent(mapping: &Mapping, relation: usize) -> Vec<WhenAbsent> {
    mapping.relations[relation].columns.iter().map(|column| column.when_absent).collect()
}

const CONTRACT: &str = r#"
[root]
table = "convocatoria"
key   = ["codigo_bdns"]
id    = "id"

[root.columns]
codigo_bdns     = "codigoBDNS"
nivel1          = "organo.nivel1"
fecha_publicacion = ["fechaPublicacion", "fechaRecepcion"]
fecha_recepcion = { path = "fechaRecepcion", zone = "Europe/Madrid" }
finalidad_id    = { lookup = "finalidad", match = { descripcion = "descripcionFinalidad" }, when_absent = "null" }

[[root.children]]
name   = "documentos"
table  = '"My.Schema".documento'
parent = "convocatoria_id"
key    = ["id_oficial"]
unique_in = "all"
pair = false
when_absent = "empty"
when_null   = "error"
on_duplicate = "last"
columns = { id_oficial = "id", nombre_fic = "nombreFic", longitud = "long" }

[[root.links]]
name   = "sectores"
table  = "convocatoria_sector"
parent = "convocatoria_id"
target = "sector_id"
lookup = "sector"
match  = { descripcion = "descripcion", codigo = "codigo" }

[lookups.sector]
table   = "public.sector"
id      = "id"
key     = ["codigo", "descripcion"]
missing = "insert"
columns = { codigo = "codigo", descripcion = "descripcion", nota = "nota" }

[lookups.finalidad]
table = "finalidad"
id    = "id"
key   = "descripcion"
missing = "skip"

[sync]
atomic    = "document"
mark_hash = "content_hash"
mark_time = "last_synced_at"
"#;

#[test]
fn every_key_of_the_contract_is_read() {
    let mapping = parse(CONTRACT);
    let [root, documents, sectors] = mapping.relations.as_slice() else { panic!("{mapping:?}") };
    assert_eq!((root.name.as_str(), root.kind, root.id.as_deref()), ("m", RelationKind::Root, Some("id")));
    let names: Vec<&str> = root.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["nivel1", "codigo_bdns", "finalidad_id", "fecha_recepcion", "fecha_publicacion"]);
    let places: Vec<usize> = root.columns.iter().map(|column| column.place).collect();
    assert_eq!(places, [1, 0, 4, 3, 2]);
    assert_eq!(root.columns[4].source, mapped(&["fechaPublicacion", "fechaRecepcion"]));
    assert!(
        matches!(&root.columns[3].source, Source::Path { zone: Some(zone), .. } if zone == "Europe/Madrid")
    );
    assert!(matches!(&root.columns[2].source, Source::Lookup { lookup: 1, .. }));
    assert_eq!(root.columns[2].when_absent, WhenAbsent::Empty);

    assert_eq!(documents.table, TableName { schema: Some("My.Schema".into()), table: "documento".into() });
    assert_eq!((documents.enclosing, documents.unique_in), (Some(0), UniqueIn::All));
    assert_eq!((documents.when_absent, documents.when_null), (WhenAbsent::Empty, WhenNull::Error));
    assert_eq!(
        (documents.on_duplicate, documents.path.to_string()),
        (OnDuplicate::Last, "documentos".into())
    );

    assert_eq!(
        (sectors.kind, sectors.key.as_slice()),
        (RelationKind::Link, ["sector_id".to_owned()].as_slice())
    );
    assert_eq!(sectors.on_duplicate, OnDuplicate::First);
    let Source::Lookup { lookup: 0, matching } = &sectors.columns[0].source else { panic!("{sectors:?}") };
    assert_eq!(matching.iter().map(ToString::to_string).collect::<Vec<_>>(), ["codigo", "descripcion"]);

    assert_eq!((mapping.lookups[0].missing, mapping.lookups[1].missing), (Missing::Insert, Missing::Skip));
    let further: Vec<&str> = mapping.lookups[0].columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(further, ["nota"], "those of the key come from `match`");
    assert_eq!(mapping.sync.mark_hash.as_deref(), Some("content_hash"));
    assert_eq!(mapping.sync.mark_time.as_deref(), Some("last_synced_at"));
}

#[test]
fn what_is_left_out_keeps_stored_rows_and_fails_on_doubt() {
    let mapping = parse(&with_child("key = \"x\""));
    let child = &mapping.relations[1];
    assert_eq!((child.when_absent, child.when_null), (WhenAbsent::Keep, WhenNull::Empty));
    assert_eq!((child.unique_in, child.on_duplicate), (UniqueIn::Parent, OnDuplicate::Error));
    assert_eq!(child.id, None);
    assert_eq!(mapping.sync, crate::mapping::SyncOptions::default());
}

#[test]
fn a_mapping_is_the_same_from_toml_and_from_its_definition() {
    let mapping = parse(CONTRACT);
    let again = Mapping::from_json(&mapping.definition).unwrap();
    assert_eq!(again.definition, mapping.definition);
    let names = |mapping: &Mapping| mapping.relations.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&mapping));
    assert_eq!(again.relations[1].key, mapping.relations[1].key);
}

#[test]
fn p12_a_key_column_and_a_row_without_a_key_have_no_holes() {
    let mapping = parse(&with_child(
        r#"
[[root.children]]
name = "d"
table = "d"
parent = "t_a"
key = "x"
columns = { x = "x", y = "y" }
"#,
    ));
    assert_eq!(absent(&mapping, 0), [WhenAbsent::Empty, WhenAbsent::Keep]);
    assert_eq!(absent(&mapping, 1), [WhenAbsent::Empty, WhenAbsent::Empty], "no key");
    assert_eq!(absent(&mapping, 2), [WhenAbsent::Empty, WhenAbsent::Keep]);
    let mend = "rows are told apart by this column, so it cannot keep its value; leave when_absent out";
    assert_eq!(
        faults(&with_child("").replace("y = \"y\"", "y = { path = \"y\", when_absent = \"keep\" }")),
        [format!("line 11: root.children[0].columns.y.when_absent: {mend}")]
    );
}

#[test]
fn absent_columns_are_inherited_and_a_column_overrides_them() {
    let mapping = parse(
        r#"
[root]
table = "t"
key = "a"
absent_columns = "null"
columns = { a = "a", b = "b", c = { path = "c", when_absent = "keep" } }
[[root.children]]
name = "c"
table = "c"
parent = "t_a"
key = "x"
columns = { x = "x", y = "y" }
[[root.children]]
name = "d"
table = "d"
parent = "t_a"
key = "x"
absent_columns = "keep"
columns = { x = "x", y = "y" }
"#,
    );
    assert_eq!(absent(&mapping, 0), [WhenAbsent::Empty, WhenAbsent::Empty, WhenAbsent::Keep]);
    assert_eq!(absent(&mapping, 1), [WhenAbsent::Empty, WhenAbsent::Empty]);
    assert_eq!(absent(&mapping, 2), [WhenAbsent::Empty, WhenAbsent::Keep]);
}

#[test]
fn relations_come_outside_in_at_any_depth() {
    let mapping = parse(
        r#"
[root]
table = "channel"
key = "v"
columns = { v = "v" }
[[root.children]]
name = "releases"
table = "release"
parent = "channel_v"
key = "v"
id = "id"
columns = { v = "v", place = "@index" }
[[root.children.links]]
name = "cves"
path = "cve-list"
table = "release_cve"
parent = "release_id"
target = "cve_id"
lookup = "cve"
match = { name = "cve-id" }
[[root.children.children]]
name = "files"
path = 'runtime."the.files"'
table = "file"
parent = ["release_id"]
columns = { name = "name", of = "^.v", channel = "^.^.v", place = "^.@index" }
[lookups.cve]
table = "cve"
id = "id"
key = "name"
"#,
    );
    let shape: Vec<(&str, Option<usize>)> =
        mapping.relations.iter().map(|r| (r.name.as_str(), r.enclosing)).collect();
    assert_eq!(shape, [("m", None), ("releases", Some(0)), ("files", Some(1)), ("cves", Some(1))]);
    assert_eq!(mapping.relations[2].path.to_string(), "runtime.\"the.files\"");
}

#[test]
fn a_name_with_a_dot_is_one_field_unless_it_is_a_path() {
    let mapping = parse(&with_child("").replace("name = \"c\"", "name = \"a.b\""));
    assert_eq!(mapping.relations[1].path.0.len(), 1);
    let mapping = parse(&with_child("path = \"a.b\""));
    assert_eq!(mapping.relations[1].path.0.len(), 2);
}

#[test]
fn parent_has_as_many_columns_as_the_enclosing_row_is_referred_to_by() {
    let two = "[root]\ntable = \"t\"\nkey = [\"a\", \"b\"]\ncolumns = { a = \"a\", b = \"b\" }\n[[root.children]]\nname = \"c\"\ntable = \"c\"\nparent = PARENT\ncolumns = { x = \"x\" }";
    parse(&two.replace("PARENT", "[\"p\", \"q\"]"));
    parse(&two.replace("PARENT", "\"p\"").replace("key =", "id = \"id\"\nkey ="));
    assert_eq!(
        faults(&two.replace("PARENT", "\"p\"")),
        [
            "line 10: root.children[0].parent: 1 column, but rows of root are referred to by a, b; name 2 columns"
        ]
    );
    assert_eq!(
        faults(&two.replace("PARENT", "[\"p\", \"q\"]").replace("key =", "id = \"id\"\nkey =")),
        [
            "line 11: root.children[0].parent: 2 columns, but rows of root are referred to by id; name 1 column"
        ]
    );
}

#[test]
fn rows_with_rows_inside_them_need_something_to_refer_to() {
    let inner =
        "[[root.children.children]]\nname = \"d\"\ntable = \"d\"\nparent = \"p\"\ncolumns = { z = \"z\" }";
    assert_eq!(
        faults(&with_child(inner)),
        [
            "line 7: root.children[0]: has relations inside it, which need something to refer to; add id, or key with unique_in = \"all\""
        ]
    );
    assert_eq!(
        faults(&with_child(&format!("key = \"x\"\n{inner}"))),
        [
            "line 7: root.children[0]: has relations inside it, and its key is unique only within the parent; add id, or unique_in = \"all\""
        ]
    );
    parse(&with_child(&format!("key = \"x\"\nunique_in = \"all\"\n{inner}")));
    parse(&with_child(&format!("id = \"id\"\n{inner}")));
}

#[test]
fn an_id_that_is_mapped_is_fine() {
    parse(&with_child("id = \"x\""));
    parse(&rooted("id = \"a\""));
}

#[test]
fn two_relations_cannot_have_one_name_or_one_table() {
    let found = faults(&with_child(
        "[[root.children]]\nname = \"c\"\ntable = \"t\"\nparent = \"p\"\ncolumns = { z = \"z\" }\n[lookups.l]\nid = \"id\"\nkey = \"k\"\ntable = \"c\"",
    ));
    assert_eq!(
        found,
        [
            "line 13: root.children[1].name: root.children[0] (line 7) is named \"c\" too; name this one \"m_c\", say, and add path if it has none",
            "line 14: root.children[1].table: t is fed by root (line 3) already; every relation has a table of its own",
            "line 20: lookups.l.table: c is fed by root.children[0] (line 7); a catalogue has a table of its own",
        ]
    );
}

#[test]
fn a_column_that_refers_to_the_parent_is_filled_from_it_alone() {
    assert_eq!(
        faults(&with_child("key = [\"t_a\", \"x\"]\nid = \"t_a\"\n").replace("y = \"y\"", "t_a = \"^.a\"")),
        [
            "line 11: root.children[0].columns.t_a: column \"t_a\" refers to the parent and is filled from it; leave it out",
            "line 12: root.children[0].key: column \"t_a\" refers to the parent; a key is within its parent already; leave it out of the key",
            "line 13: root.children[0].id: this column refers to the parent; name a column of the row's own, or leave id out",
        ]
    );
}

#[test]
fn marks_are_root_columns_that_nothing_else_fills() {
    assert_eq!(
        faults(&rooted("id = \"id\"\n[sync]\nmark_hash = \"b\"\nmark_time = \"b\"")),
        [
            "line 9: sync.mark_hash: column \"b\" is filled from the document; name another, or unmap it",
            "line 10: sync.mark_time: column \"b\" is filled from the document; name another, or unmap it",
            "line 10: sync.mark_time: column \"b\" is mark_hash already; name another",
        ]
    );
    assert_eq!(
        faults(&rooted("id = \"id\"\n[sync]\nmark_time = \"id\"")),
        ["line 9: sync.mark_time: column \"id\" is the id; name another"]
    );
}

#[test]
fn p31_what_becomes_of_a_missing_document_is_said_at_the_root() {
    let absent = |root: &str, sync: &str| rooted(&format!("id = \"id\"\n{root}\n[sync]\n{sync}"));
    let on_absent = |root: &str, sync: &str| parse(&absent(root, sync)).sync.on_absent;
    assert_eq!(on_absent("", ""), OnAbsent::Delete);
    assert_eq!(on_absent("on_absent = \"keep\"", ""), OnAbsent::Keep);
    let mark = "on_absent = \"mark\"";
    assert_eq!(on_absent(mark, "mark_absent = \"gone\""), OnAbsent::Mark("gone".into()));
    let place = "line 10: sync.mark_absent: ";
    assert_eq!(
        faults(&absent("", "mark_absent = \"gone\"")),
        [format!("{place}filled only by root.on_absent = \"mark\"; write that, or leave it out")]
    );
    assert_eq!(
        faults(&absent(mark, "mark_absent = \"b\"")),
        [format!("{place}column \"b\" is filled from the document; name another, or unmap it")]
    );
    assert_eq!(
        faults(&absent(mark, "")),
        ["line 8: root.on_absent: name the column to mark: [sync] mark_absent = \"…\""]
    );
}

#[test]
fn a_mapping_without_anything_names_what_is_missing() {
    let error = Mapping::from_json(&json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version: missing; add version = 1\n\
         name: missing; add name = \"…\", which names the mapping in the database\n\
         root: missing; describe the table that has one row a document"
    );
    assert_eq!(
        Mapping::from_json(&json!([])).unwrap_err().faults[0].message,
        "expected an object, found a list"
    );
}

#[test]
fn faults_of_the_syntax_have_their_lines() {
    let error = Mapping::from_toml("version = 1\nname = \"a\nroot = {\n").unwrap_err();
    assert!(error.faults.iter().all(|fault| fault.place.is_empty() && fault.line.is_some()), "{error}");
    assert_eq!(error.faults[0].line, Some(2), "{error}");
    let error = Mapping::from_toml("version = 1\r\nname = \"a\"\r\nname = \"b\"\r\n").unwrap_err();
    assert_eq!(error.to_string(), "line 3: name is written twice; leave one out");
}

#[test]
fn lines_are_found_inside_long_values_and_after_windows_line_ends() {
    let text = format!("{HEAD}{}", with_child("key = [\n  \"x\",\n  \"x\",\n]")).replace('\n', "\r\n");
    let error = Mapping::from_toml(&text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 14: root.children[0].key[1]: column \"x\" is named twice; leave one out"
    );
}

#[test]
fn p22_all_faults_are_reported_at_once_each_with_its_place_and_what_mends_it() {
    let error = Mapping::from_toml(include_str!("faulty.toml")).unwrap_err();
    let expected = include_str!("faulty.txt");
    assert_eq!(error.to_string(), expected.trim_end());
    assert!(error.faults.len() >= 120, "{}", error.faults.len());
}

#[test]
fn the_examples_have_no_faults() {
    let calls = Mapping::from_toml(include_str!("../../../examples/convocatorias/mapping.toml")).unwrap();
    assert_eq!((calls.relations.len(), calls.lookups.len()), (10, 10));
    let releases =
        Mapping::from_toml(include_str!("../../../examples/dotnet_releases/mapping.toml")).unwrap();
    let files = releases.relations.iter().find(|relation| relation.name == "sdk_files").unwrap();
    let sdks = &releases.relations[files.enclosing.unwrap()];
    assert_eq!((sdks.name.as_str(), sdks.enclosing), ("sdks", Some(1)));
}

/// A root and one link, whose keys are lines 6 to 12, then `rest`.
fn with_link(rest: &str) -> String {
    let link = r#"
name = "l"
table = "l"
parent = "t_a"
target = "k_id"
lookup = "k"
match = { code = "code" }
"#;
    let lookup = "[lookups.k]\ntable = \"k\"\nid = \"id\"\nkey = \"code\"\n";
    rooted(&format!("[[root.links]]{link}{rest}\n{lookup}"))
}

#[test]
fn a_link_has_its_target_first_and_its_own_columns_after_it() {
    let mapping =
        parse(&with_link("path = \"x.y\"\non_duplicate = \"error\"\ncolumns = { since = \"since\" }"));
    let link = &mapping.relations[1];
    assert_eq!((link.columns[0].name.as_str(), link.columns[1].name.as_str()), ("k_id", "since"));
    assert_eq!(absent(&mapping, 1), [WhenAbsent::Empty, WhenAbsent::Keep]);
    assert_eq!((link.on_duplicate, link.path.to_string()), (OnDuplicate::Error, "x.y".into()));
    assert_eq!(
        faults(&with_link("columns = { k_id = \"x\" }")),
        [
            "line 14: root.links[0].columns.k_id: column \"k_id\" is the target, which `match` fills; leave it out"
        ]
    );
    assert_eq!(
        faults(&with_link("key = \"since\"")),
        [
            "line 14: root.links[0].key: unknown key; known here: name, path, table, parent, target, lookup, match, where, otherwise, when_absent, when_null, when_single, on_duplicate, absent_columns, columns"
        ]
    );
    assert_eq!(
        faults(&with_link("").replace("\"k_id\"", "\"t_a\"")),
        [
            "line 11: root.links[0].target: column \"t_a\" refers to the parent and is filled from it; leave it out"
        ]
    );
}

#[test]
fn further_columns_of_a_catalogue_are_seen_from_every_item_that_refers_to_it() {
    let text = with_link("") + "columns = { code = \"code\", of = \"^.a\" }";
    parse(&text);
    let text = text.replace("b = \"b\"", "k_id = { lookup = \"k\", match = { code = \"k\" } }");
    let message = "`^.a` leads out of the document; the document has nothing around it; leave `^` out";
    assert_eq!(faults(&text), [format!("line 19: lookups.k.columns.of: {message}")]);
}

#[test]
fn values_of_the_wrong_kind_are_named_in_json_too() {
    let error = Mapping::from_json(&json!({
        "version": 1.5, "name": null,
        "root": { "table": "t", "key": ["a"], "columns": { "a": 2.5, "b c": { "path": "b", "zone": "" } }, "links": {} },
        "lookups": [],
    }));
    assert_eq!(
        error.unwrap_err().to_string(),
        "version: expected the integer 1, found a float\n\
         name: expected a string, found null\n\
         lookups: expected an object, found a list\n\
         root.columns.a: expected a path, a list of paths, or a table with path, lookup or value, found a float\n\
         root.columns.\"b c\".zone: empty; write a name\n\
         root.links: expected a list of objects, found an object"
    );
}

#[test]
fn p11_only_columns_of_a_key_may_be_nullable() {
    let mapping =
        parse(&with_child("key = [\"x\"]").replace("x = \"x\"", "x = { path = \"x\", nullable = true }"));
    assert!(mapping.relations[1].has_nullable_key() && !mapping.relations[0].has_nullable_key());
    let message = "only columns of the key need it; leave it out";
    let nullable = with_child("").replace("y = \"y\"", "y = { path = \"y\", nullable = true }");
    assert_eq!(faults(&nullable), [format!("line 11: root.children[0].columns.y.nullable: {message}")]);
    let lookup = "[lookups.l]\ntable = \"l\"\nid = \"id\"\nkey = [\"k\", \"n\"]\n";
    let both = rooted(&format!("{lookup}columns = {{ n = {{ nullable = true }}, k = \"k\", o = \"o\" }}"));
    assert_eq!(parse(&both).lookups[0].nullable, ["n"]);
    let other = rooted(&format!("{lookup}columns = {{ o = {{ path = \"o\", nullable = true }} }}"));
    assert_eq!(faults(&other), [format!("line 11: lookups.l.columns.o.nullable: {message}")]);
    assert_eq!(
        faults(&both.replace("[\"k\", \"n\"]", "\"n\"")),
        [
            "line 11: lookups.l.columns.n.nullable: a reference whose whole key is null is NULL itself; leave it out"
        ]
    );
}

#[test]
fn p11_nothing_refers_to_a_key_that_may_be_null_or_may_change() {
    let nullable = with_child("").replace("a = \"a\"", "a = { path = \"a\", nullable = true }");
    assert_eq!(
        faults(&nullable),
        [
            "line 3: root: has relations inside it, and a key that may be NULL, which nothing can refer to; add id, or leave nullable out"
        ]
    );
    parse(&nullable.replace("key = \"a\"", "key = \"a\"\nid = \"id\""));
    let alternate = with_child("").replace("key = \"a\"", "key = \"a\"\nalternate_key = \"b\"");
    assert_eq!(
        faults(&alternate),
        [
            "line 3: root: has relations inside it, and a key that may change (alternate_key), to which they refer; add id"
        ]
    );
    parse(&alternate.replace("key = \"a\"\n", "key = \"a\"\nid = \"id\"\n"));
}

#[test]
fn p13_a_place_is_one_in_a_list_and_no_key() {
    let placed = |columns: &str| with_child("").replace("y = \"y\"", columns);
    let mapping = parse(&placed("y = { position = -3, type = \"integer\" }"));
    assert_eq!(mapping.relations[1].columns[1].source, Source::Position { first: -3 });
    let of_root = rooted("").replace("b = \"b\"", "b = { position = 1 }");
    assert_eq!(faults(&of_root), ["line 6: root.columns.b: a document has no place in a list; leave it out"]);
    let place = "line 11: root.children[0].columns.y";
    assert_eq!(
        faults(&(placed("y = { position = 1 }") + "key = \"y\"")),
        [format!(
            "{place}: rows would be told apart by their place; take the column out of the key, or map it to @index"
        )]
    );
    assert_eq!(
        faults(
            &placed("y = { position = 1 }")
                .replace("\"x\" ", "\"@key\" ")
                .replace("x = \"x\"", "x = \"@key\"")
        ),
        [format!("{place}: the relation reads an object as a map (@key), which has no order; leave it out")]
    );
    assert_eq!(
        faults(&placed("y = { position = 1, path = \"y\" }")),
        [format!("{place}.path: the value is the row's place in its list; leave this out, or position")]
    );
}

#[test]
fn an_alternate_key_is_made_of_columns_and_says_more_than_the_key() {
    let alternate = |names: &str| rooted(&format!("alternate_key = {names}"));
    assert_eq!(parse(&alternate("[\"b\"]")).root().alternate_key_columns(), [1]);
    let place = "line 7: root.alternate_key";
    assert_eq!(
        faults(&alternate("\"c\"")),
        [format!("{place}: column \"c\" is not among its columns; did you mean \"a\"?")]
    );
    assert_eq!(
        faults(&alternate("[\"a\", \"b\"]")),
        [format!(
            "{place}: it has all columns of key, so it changes whenever that does; name columns that stay"
        )]
    );
}

#[test]
fn p33_what_decides_which_row_is_which_is_no_part_of_a_relations_digest() {
    let plain = with_child("").replace("key = \"a\"", "key = \"a\"\nid = \"id\"");
    let serialised = |text: &str| serde_json::to_string(&parse(text)).unwrap();
    let alternate = plain.replace("id = \"id\"", "id = \"id\"\nalternate_key = \"b\"");
    let nullable = plain.replace("a = \"a\"", "a = { path = \"a\", nullable = true }");
    for other in [alternate, nullable, format!("{plain}pair = true\n")] {
        assert_eq!(serialised(&other), serialised(&plain));
    }
}
