//! The statements by which PostgreSQL takes documents apart and casts their values.

use super::mapping::{Column, Last, Mapping, Path, Relation};
use super::values::{Type, Types, array, at, cast, constant, literal, present, quote};

/// The item's jsonb, decompressed here once instead of at every look into it. With `OFFSET 0` in a subquery.
const DECOMPRESSED: &str = "CASE WHEN jsonb_typeof(n.b) = 'object' THEN n.b || '{}' ELSE n.b END";

/// A table as the mapping names it, quoted.
pub fn table(name: &str) -> String {
    match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(name),
    }
}

/// The table of expected rows of a relation.
pub fn expected(relation: &Relation) -> String {
    format!("oracle.{}", quote(&format!("expected {}", relation.name)))
}

/// The same as it was before the last feed.
pub fn before(relation: &Relation) -> String {
    format!("oracle.{}", quote(&format!("before {}", relation.name)))
}

/// Statements for one relation, given its index.
pub struct Statements<'a> {
    pub mapping: &'a Mapping,
    pub types: &'a Types,
    pub at: usize,
}

impl Statements<'_> {
    pub fn relation(&self) -> &Relation {
        &self.mapping.relations[self.at]
    }

    fn ty(&self, table: &str, column: &str) -> &Type {
        &self.types[&(table.to_owned(), column.to_owned())]
    }

    fn needs_json(&self) -> bool {
        let mut columns = self.mapping.relations.iter().flat_map(|relation| &relation.columns);
        self.types.values().any(Type::reads_json) || columns.any(|column| column.form.takes_nul())
    }

    /// Which items of a list belong to the relation.
    fn belongs(&self) -> String {
        let one = |(path, values): &(Path, Vec<String>)| {
            let found = match (path.last, path.down.is_empty()) {
                (Last::Key, _) => "to_jsonb(x.name)".to_owned(),
                (_, true) => "x.b".to_owned(),
                (_, false) => format!("(x.b #> {})", array(&path.down)),
            };
            let values = values.iter().map(|value| format!("{}::jsonb", literal(value)));
            format!("{found} IN ({})", values.collect::<Vec<_>>().join(", "))
        };
        let conditions: Vec<String> = self.relation().conditions.iter().map(one).collect();
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
    }

    /// The lists found in the enclosing items, and their items.
    pub fn items(&self) -> String {
        let (r, relation) = (self.at, self.relation());
        let Some(e) = relation.enclosing else {
            return format!(
                "DROP TABLE IF EXISTS oracle.i0;
                 CREATE UNLOGGED TABLE oracle.i0 AS SELECT line AS node, NULL::bigint AS pnode, '[]'::jsonb AS pid,
                   line AS ord, NULL::text AS name, doc::jsonb AS b, {} AS j
                   FROM (SELECT line, oracle.without_nul(doc) AS doc FROM oracle.document) d",
                if self.needs_json() { "doc::json" } else { "NULL::json" }
            );
        };
        let list = at(&relation.path, "b");
        let list_json = if self.needs_json() { at(&relation.path, "j") } else { "NULL::json".into() };
        let names_items = |p: &Path| p.last == Last::Key && p.up == 0;
        let is_map = relation.columns.iter().any(|column| column.paths.iter().any(names_items))
            || relation.conditions.iter().any(|(path, _)| names_items(path));
        let single = |list: String, to: &str| match relation.single && !is_map {
            true => format!(
                "CASE WHEN {to}_typeof({list}) NOT IN ('array', 'null') THEN {to}_build_array({list}) ELSE {list} END"
            ),
            false => list,
        };
        let (list, list_json) = (single(list, "jsonb"), single(list_json, "json"));
        let absent = format!("NOT {}", present(&relation.path));
        let null = match relation.when_null.as_str() {
            "error" => "oracle.refuse('null in place of a list')".to_owned(),
            other => literal(other),
        };
        let list_type = if is_map { "object" } else { "array" };
        let each = match (is_map, self.needs_json()) {
            (false, false) => "jsonb_array_elements(list)) WITH ORDINALITY AS x(b, ord)",
            (false, true) => {
                "jsonb_array_elements(list), json_array_elements(listj)) WITH ORDINALITY AS x(b, j, ord)"
            }
            (true, false) => "jsonb_each(list)) WITH ORDINALITY AS x(name, b, ord)",
            (true, true) => {
                "jsonb_each(list)) WITH ORDINALITY AS x(name, b, ord), LATERAL (SELECT listj -> x.name AS j) y"
            }
        };
        let name = if is_map { "x.name" } else { "NULL::text" };
        let j = if self.needs_json() { "j" } else { "NULL::json" };
        format!(
            "DROP TABLE IF EXISTS oracle.l{r}, oracle.i{r};
             CREATE UNLOGGED TABLE oracle.l{r} AS
               SELECT pnode, pid, list, listj,
                 CASE WHEN absent THEN {when_absent}
                      WHEN coalesce(jsonb_typeof(list), 'null') = 'null' THEN {null}
                      WHEN jsonb_typeof(list) = '{list_type}' THEN 'list'
                      ELSE oracle.refuse('no list: ' || left(list::text, 100)) END AS state
               FROM (SELECT n.node AS pnode, n.id AS pid, {list} AS list, {list_json} AS listj, {absent} AS absent
                     FROM (SELECT node, r.id, n.ord, n.name, n.j, {DECOMPRESSED} AS b
                           FROM oracle.r{e} r JOIN oracle.i{e} n USING (node) OFFSET 0) n OFFSET 0) x;
             CREATE UNLOGGED TABLE oracle.i{r} AS
               SELECT row_number() OVER () AS node, pnode, pid, ord, {name} AS name, x.b AS b, {j} AS j
               FROM (SELECT * FROM oracle.l{r} WHERE state = 'list' OFFSET 0) l, ROWS FROM ({each} {belongs}",
            belongs = self.belongs(),
            when_absent = literal(&relation.when_absent),
        )
    }

    /// The items' values, cast by assignment to columns of the very types of the table.
    pub fn typed(&self) -> String {
        let r = self.at;
        let cells: Vec<Cell> = self.cells();
        let define =
            cells.iter().map(|cell| format!("{} {}", cell.name, cell.ty)).collect::<Vec<_>>().join(", ");
        let values = cells.iter().map(|cell| cell.value.clone()).collect::<Vec<_>>().join(",\n  ");
        let mut from =
            format!("(SELECT node, pnode, ord, name, j, {DECOMPRESSED} AS b FROM oracle.i{r} n OFFSET 0) n");
        let mut relation = self.relation();
        let mut inner = "n".to_owned();
        for level in 1.. {
            let Some(e) = relation.enclosing else { break };
            from += &format!(" JOIN oracle.i{e} p{level} ON p{level}.node = {inner}.pnode");
            (relation, inner) = (&self.mapping.relations[e], format!("p{level}"));
        }
        format!(
            "DROP TABLE IF EXISTS oracle.t{r};
             CREATE UNLOGGED TABLE oracle.t{r} (node bigint, {define});
             INSERT INTO oracle.t{r} SELECT n.node,\n  {values}\nFROM {from}"
        )
    }

    fn cells(&self) -> Vec<Cell> {
        let relation = self.relation();
        let mut cells = Vec::new();
        for (c, column) in relation.columns.iter().enumerate() {
            match &column.lookup {
                None if column.position.is_some() => {
                    let ty = self.ty(&relation.table, &column.name).full.clone();
                    cells.push(Cell { name: format!("c{c}"), ty, value: "NULL".into() });
                    cells.push(Cell { name: format!("k{c}"), ty: "boolean".into(), value: "false".into() });
                    continue;
                }
                None if column.constant.is_some() => {
                    let ty = self.ty(&relation.table, &column.name);
                    let value = constant(column.constant.as_deref().unwrap_or_default(), ty);
                    cells.push(Cell { name: format!("c{c}"), ty: ty.full.clone(), value });
                    cells.push(Cell { name: format!("k{c}"), ty: "boolean".into(), value: "false".into() });
                    continue;
                }
                None => {
                    let ty = self.ty(&relation.table, &column.name);
                    let value = cast(&column.paths, column.zone.as_deref(), ty, &column.form);
                    cells.push(Cell { name: format!("c{c}"), ty: ty.full.clone(), value });
                }
                Some((lookup, matching)) => {
                    let lookup = &self.mapping.lookups[*lookup];
                    for (k, (key, path)) in lookup.key.iter().zip(matching).enumerate() {
                        let ty = self.ty(&lookup.table, key);
                        let value = cast(std::slice::from_ref(path), None, ty, &lookup.forms[k]);
                        cells.push(Cell { name: format!("c{c}_{k}"), ty: ty.full.clone(), value });
                    }
                }
            }
            let absent = column_paths(column).map(present).collect::<Vec<_>>().join(" OR ");
            let kept = format!("{} AND NOT ({absent})", column.keep);
            cells.push(Cell { name: format!("k{c}"), ty: "boolean".into(), value: kept });
        }
        cells
    }

    /// The key of a catalogue that a column refers to, from the typed cells; null if all of it is.
    fn reference(&self, c: usize, column: &Column) -> Option<String> {
        let (lookup, _) = column.lookup.as_ref()?;
        let lookup = &self.mapping.lookups[*lookup];
        let cell = |k: usize| format!("t.c{c}_{k}");
        let keys = lookup.key.iter().enumerate();
        let parts =
            keys.clone().map(|(k, key)| self.ty(&lookup.table, key).comparable(&cell(k))).collect::<Vec<_>>();
        let any =
            keys.clone().map(|(k, _)| format!("{} IS NOT NULL", cell(k))).collect::<Vec<_>>().join(" OR ");
        let there = match lookup.missing.as_str() {
            "skip" => {
                let same = keys.map(|(k, key)| format!("l.{} IS NOT DISTINCT FROM {}", quote(key), cell(k)));
                let same = same.collect::<Vec<_>>().join(" AND ");
                format!("({any}) AND EXISTS (SELECT FROM {} l WHERE {same})", table(&lookup.table))
            }
            _ => any,
        };
        Some(format!("CASE WHEN {there} THEN jsonb_build_array({}) END", parts.join(", ")))
    }

    /// The rows that the items are: identity, identity of the parent, comparison forms of the columns.
    pub fn rows(&self) -> String {
        let (r, relation) = (self.at, self.relation());
        let form = |(c, column): (usize, &Column)| {
            self.reference(c, column)
                .unwrap_or_else(|| self.ty(&relation.table, &column.name).comparable(&format!("t.c{c}")))
        };
        let forms: Vec<String> = relation.columns.iter().enumerate().map(form).collect();
        let kept = forms.iter().enumerate().map(|(c, form)| {
            let new = self.default_form(&relation.columns[c]);
            format!(
                "CASE WHEN NOT t.k{c} THEN {form} WHEN old.id IS NULL THEN {new} ELSE old.cols -> {c} END"
            )
        });
        let kept = kept.collect::<Vec<_>>().join(",\n  ");
        let identity = self.identity(|c| forms[c].clone(), "i.pid", &self.content(&forms));
        let order = if relation.on_duplicate == "last" { "DESC" } else { "" };
        // A multiset keeps its twins; a link to a catalogue row that is skipped is no row.
        let distinct = if relation.key.is_empty() { "" } else { "DISTINCT ON (id)" };
        let linked = self
            .key_is_skipped_lookup()
            .map_or(String::new(), |c| format!("WHERE ({}) IS NOT NULL", forms[c]));
        format!(
            "DROP TABLE IF EXISTS oracle.a{r}, oracle.r{r};
             CREATE UNLOGGED TABLE oracle.a{r} AS
               SELECT x.*, jsonb_build_array({kept}) AS cols
               FROM (SELECT t.*, i.pnode, i.pid, i.ord, {identity} AS id
                     FROM oracle.t{r} t JOIN oracle.i{r} i USING (node) {linked}) t
               JOIN LATERAL (SELECT t.node, t.pnode, t.pid, t.ord, t.id) x ON true
               LEFT JOIN {expected} old ON old.id = t.id AND {keyed};
             CREATE UNLOGGED TABLE oracle.r{r} AS
               SELECT node, pnode, pid, id, {numbered} AS cols FROM (
                 SELECT x.*, row_number() OVER (PARTITION BY pnode ORDER BY ord) - 1 AS place FROM (
                   SELECT {distinct} node, pnode, pid, id, cols, ord FROM oracle.a{r} ORDER BY id, ord {order}) x) y",
            expected = expected(relation),
            keyed = !relation.key.is_empty(),
            numbered = self.numbered(),
        )
    }

    /// The columns with the rows' places filled in, which are known once it is known which rows there are.
    fn numbered(&self) -> String {
        let relation = self.relation();
        let positions =
            relation.columns.iter().enumerate().filter_map(|(c, column)| Some((c, column.position?)));
        positions.fold("cols".to_owned(), |cols, (c, first)| {
            let ty = self.ty(&relation.table, &relation.columns[c].name);
            let form = ty.comparable(&format!("({first} + place)::{}", ty.full));
            format!("jsonb_set({cols}, '{{{c}}}', {form})")
        })
    }

    /// What identifies a row without a key: all columns but those that hold its place.
    fn content(&self, forms: &[String]) -> String {
        let columns = self.relation().columns.iter().zip(forms);
        let forms = columns.map(|(column, form)| if column.position.is_some() { "NULL" } else { form });
        format!("jsonb_build_array({})", forms.collect::<Vec<_>>().join(",\n  "))
    }

    /// Root rows whose key is another now but whose alternate key is the same: what is below them is called after
    /// the new key too. Empty where there is no alternate key.
    pub fn rename(&self) -> String {
        let relation = self.relation();
        if relation.alternate_key.is_empty() {
            return String::new();
        }
        let form = |c: usize| {
            let ty = self.ty(&relation.table, &relation.columns[c].name);
            ty.comparable(&format!("t.c{c}"))
        };
        let place =
            |name: &String| relation.columns.iter().position(|column| column.name == *name).expect("mapped");
        let alternate: Vec<usize> = relation.alternate_key.iter().map(place).collect();
        let same = alternate.iter().map(|&c| format!("{} = nullif(e.cols -> {c}, 'null')", form(c)));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let identity = self.identity(form, "'[]'::jsonb", "NULL");
        let mut sql = format!(
            "DROP TABLE IF EXISTS oracle.renamed;
             CREATE UNLOGGED TABLE oracle.renamed AS
               SELECT e.id -> 0 AS old, n.id -> 0 AS new FROM {expected} e
               JOIN LATERAL (SELECT {identity} AS id FROM oracle.t0 t WHERE {same}) n ON n.id <> e.id;",
            expected = expected(relation)
        );
        let tables = self.mapping.relations.iter().map(expected).chain([before(relation)]);
        for table in tables {
            for column in ["id", "pid"] {
                sql += &format!(
                    "UPDATE {table} x SET {column} = jsonb_set({column}, '{{0}}', new) FROM oracle.renamed r
                     WHERE x.{column} -> 0 = r.old;"
                );
            }
        }
        sql
    }

    /// The comparison form of what a column holds in a new row that the document says nothing of.
    fn default_form(&self, column: &Column) -> String {
        let ty = self.ty(&self.relation().table, &column.name);
        match &ty.default {
            Some(default) if column.lookup.is_none() => ty.comparable(&format!("({default})::{}", ty.full)),
            _ => "NULL".into(),
        }
    }

    fn key_is_skipped_lookup(&self) -> Option<usize> {
        self.relation().columns.iter().position(|column| {
            let skipped =
                column.lookup.as_ref().is_some_and(|(l, _)| self.mapping.lookups[*l].missing == "skip");
            skipped && self.relation().key.contains(&column.name)
        })
    }

    /// `[name, key]` below the parent's identity, or alone where the key is unique in the table.
    fn identity(&self, form: impl Fn(usize) -> String, pid: &str, content: &str) -> String {
        let relation = self.relation();
        let column = |name: &String| {
            let c = relation.columns.iter().position(|column| column.name == *name);
            form(c.unwrap_or_else(|| panic!("{}: key column `{name}` is not mapped", relation.name)))
        };
        let key = match relation.key.is_empty() {
            true => content.to_owned(),
            false => format!(
                "jsonb_build_array({})",
                relation.key.iter().map(column).collect::<Vec<_>>().join(", ")
            ),
        };
        let own = format!("jsonb_build_array({}::text, {key})", literal(&relation.name));
        if relation.unique_in_all { own } else { format!("{pid} || jsonb_build_array({own})") }
    }

    /// Queries that find two rows of one identity which differ; any row they yield is a fault.
    pub fn conflicts(&self) -> Vec<String> {
        let (r, relation) = (self.at, self.relation());
        let mut queries = Vec::new();
        let conflict = |by: &str, differ: &str, from: &str| {
            format!("SELECT id FROM {from} GROUP BY {by} HAVING count(DISTINCT {differ}) > 1 LIMIT 3")
        };
        if relation.enclosing.is_none() {
            queries.push(conflict("id", "b", &format!("oracle.a{r} JOIN oracle.i{r} USING (node)")));
        } else if !relation.key.is_empty() && relation.on_duplicate == "error" {
            queries.push(conflict("pid, id", "cols", &format!("oracle.a{r}")));
        }
        if relation.unique_in_all {
            queries.push(conflict("id", "pid", &format!("oracle.a{r}")));
        }
        queries
    }

    /// Brings the expected rows up to date.
    pub fn advance(&self) -> String {
        let (r, relation) = (self.at, self.relation());
        let s = expected(relation);
        let mut sql = String::new();
        if relation.enclosing.is_some() {
            sql +=
                &format!("DELETE FROM {s} s USING oracle.l{r} l WHERE l.state <> 'keep' AND s.pid = l.pid;");
        }
        if relation.enclosing.is_none() || relation.unique_in_all {
            sql += &format!("DELETE FROM {s} s USING oracle.r{r} r WHERE s.id = r.id;");
        }
        sql += &format!("INSERT INTO {s} SELECT id, pid, cols FROM oracle.r{r};");
        if let Some(e) = relation.enclosing {
            let enclosing = expected(&self.mapping.relations[e]);
            sql += &format!(
                "DELETE FROM {s} s WHERE NOT EXISTS (SELECT FROM {enclosing} e WHERE e.id = s.pid);"
            );
        }
        sql + &format!("ANALYZE {s};")
    }

    /// Remembers the catalogue rows that the items need.
    pub fn references(&self) -> String {
        let remember = |(c, column): (usize, &Column)| {
            let (lookup, _) = column.lookup.as_ref()?;
            let lookup = &self.mapping.lookups[*lookup];
            let key = self.reference(c, column).filter(|_| lookup.missing == "insert")?;
            let name = literal(&lookup.name);
            Some(format!(
                "INSERT INTO oracle.catalogue SELECT DISTINCT {name}, k FROM
                   (SELECT {key} AS k FROM oracle.t{} t JOIN oracle.r{} r USING (node)) x
                 WHERE k IS NOT NULL ON CONFLICT DO NOTHING;",
                self.at, self.at
            ))
        };
        self.relation().columns.iter().enumerate().filter_map(remember).collect()
    }

    /// The rows that are really there, in the same form as the expected ones.
    pub fn actual(&self) -> String {
        let (r, relation) = (self.at, self.relation());
        let mut from = format!("{} t", table(&relation.table));
        let mut pid = "'[]'::jsonb".to_owned();
        if let Some(e) = relation.enclosing {
            let same = relation.parent.iter().zip(self.parent_references());
            let same = same.map(|(name, reference)| format!("t.{} = p.{reference}", quote(name)));
            from += &format!(" LEFT JOIN oracle.found{e} p ON {}", same.collect::<Vec<_>>().join(" AND "));
            pid = "coalesce(p.id, 'null')".into();
        }
        let mut forms = Vec::new();
        for (c, column) in relation.columns.iter().enumerate() {
            let value = format!("t.{}", quote(&column.name));
            let Some((lookup, _)) = &column.lookup else {
                forms.push(self.ty(&relation.table, &column.name).comparable(&value));
                continue;
            };
            let lookup = &self.mapping.lookups[*lookup];
            let id = format!("l{c}.{}", quote(&lookup.id));
            from += &format!(" LEFT JOIN {} l{c} ON {id} = {value}", table(&lookup.table));
            let key = lookup
                .key
                .iter()
                .map(|key| self.ty(&lookup.table, key).comparable(&format!("l{c}.{}", quote(key))));
            let key = key.collect::<Vec<_>>().join(", ");
            forms.push(format!(
                "CASE WHEN {value} IS NULL THEN NULL WHEN {id} IS NULL THEN '\"no such catalogue row\"'
                 ELSE jsonb_build_array({key}) END"
            ));
        }
        let references: String = references(relation)
            .iter()
            .enumerate()
            .map(|(k, name)| format!("t.{} AS ref{k}, ", quote(name)))
            .collect();
        let cols = format!("jsonb_build_array({})", forms.join(",\n  "));
        let identity = self.identity(|c| forms[c].clone(), &pid, &self.content(&forms));
        format!(
            "DROP TABLE IF EXISTS oracle.found{r};
             CREATE UNLOGGED TABLE oracle.found{r} AS
               SELECT {references}{identity} AS id, {pid} AS pid, {cols} AS cols FROM {from};
             ANALYZE oracle.found{r}"
        )
    }

    /// Which columns of the enclosing relation's found rows the parent columns equal: its id, or its key,
    /// or (with more parent columns than the key has) all that its own rows are found by.
    fn parent_references(&self) -> impl Iterator<Item = String> + use<> {
        let relation = self.relation();
        let enclosing =
            &self.mapping.relations[relation.enclosing.expect("only enclosed relations have parents")];
        let len = references(enclosing).len();
        (len - relation.parent.len()..len).map(|k| format!("ref{k}"))
    }

    /// One row: how many are missing, how many unexpected. Then examples of each kind.
    pub fn difference(&self) -> String {
        let (r, relation) = (self.at, self.relation());
        let s = expected(relation);
        let names = relation.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        format!(
            "WITH missing AS MATERIALIZED (TABLE {s} EXCEPT ALL SELECT id, pid, cols FROM oracle.found{r}),
                  unexpected AS MATERIALIZED (SELECT id, pid, cols FROM oracle.found{r} EXCEPT ALL TABLE {s})
             (SELECT 'count', (SELECT count(*) FROM missing)::text, (SELECT count(*) FROM unexpected)::text)
             UNION ALL (SELECT 'differs', left(m.id::text, 300),
               (SELECT string_agg(format('%s: expected %s, found %s', name,
                    left(coalesce(m.cols ->> c::int - 1, 'NULL'), 100), left(coalesce(u.cols ->> c::int - 1, 'NULL'), 100)), '; ')
                FROM unnest({names} || 'parent'::text) WITH ORDINALITY AS n(name, c)
                WHERE CASE name WHEN 'parent' THEN m.pid <> u.pid
                      ELSE (m.cols -> c::int - 1) IS DISTINCT FROM (u.cols -> c::int - 1) END)
               FROM missing m JOIN unexpected u ON m.id = u.id AND {keyed} LIMIT 3)
             UNION ALL (SELECT 'missing', left(id::text, 300), '' FROM missing m
               WHERE NOT ({keyed} AND EXISTS (SELECT FROM unexpected u WHERE u.id = m.id)) LIMIT 3)
             UNION ALL (SELECT 'unexpected', left(id::text, 300), '' FROM unexpected u
               WHERE NOT ({keyed} AND EXISTS (SELECT FROM missing m WHERE u.id = m.id)) LIMIT 3)",
            names = array(&names),
            keyed = !relation.key.is_empty(),
        )
    }

    /// One row: inserts, updates, deletes of the smallest edit from the rows before to the expected ones.
    pub fn smallest_edit(&self) -> String {
        let relation = self.relation();
        let (s, b) = (expected(relation), before(relation));
        if !relation.key.is_empty() {
            return format!(
                "SELECT count(*) FILTER (WHERE b.id IS NULL), count(*) FILTER (WHERE (b.pid, b.cols) <> (s.pid, s.cols)),
                        count(*) FILTER (WHERE s.id IS NULL)
                 FROM {s} s FULL JOIN {b} b ON s.id = b.id"
            );
        }
        // Rows that differ in their place only are the same row; of the others some may be paired.
        let paired = if relation.pair { "least(i, d)" } else { "0" };
        format!(
            "SELECT coalesce(sum(i - {paired}), 0), coalesce(sum(u + {paired}), 0), coalesce(sum(d - {paired}), 0) FROM (
               SELECT pid, sum(i - least(i, d)) AS i, sum(d - least(i, d)) AS d, sum(least(i, d)) AS u FROM (
                 SELECT pid, id, count(*) FILTER (WHERE w = 'i') AS i, count(*) FILTER (WHERE w = 'd') AS d FROM (
                   SELECT pid, id, 'i' AS w FROM (TABLE {s} EXCEPT ALL TABLE {b}) x UNION ALL
                   SELECT pid, id, 'd' FROM (TABLE {b} EXCEPT ALL TABLE {s}) x) y GROUP BY pid, id) z
               GROUP BY pid) w"
        )
    }
}

/// The columns by which rows of enclosed relations may refer to a row.
fn references(relation: &Relation) -> Vec<String> {
    match &relation.id {
        Some(id) => vec![id.clone()],
        None => [relation.parent.clone(), relation.key.clone()].concat(),
    }
}

/// One column of a table of typed values.
struct Cell {
    name: String,
    ty: String,
    value: String,
}

fn column_paths(column: &Column) -> impl Iterator<Item = &Path> {
    column.paths.iter().chain(column.lookup.iter().flat_map(|(_, matching)| matching))
}

/// The comparison form of a catalogue's key.
pub fn catalogue_key(types: &Types, table: &str, key: &[String]) -> String {
    let parts = key
        .iter()
        .map(|name| types[&(table.to_owned(), name.clone())].comparable(&format!("l.{}", quote(name))));
    format!("jsonb_build_array({})", parts.collect::<Vec<_>>().join(", "))
}

/// The statement that fills a catalogue with the rows that the documents need.
pub fn fill_catalogue(types: &Types, lookup: &super::mapping::Lookup) -> String {
    let names = lookup.key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    let full = |name: &String| &types[&(lookup.table.clone(), name.clone())].full;
    let values = lookup.key.iter().enumerate().map(|(k, name)| format!("(key ->> {k})::{}", full(name)));
    format!(
        "INSERT INTO {} ({names}) SELECT {} FROM oracle.catalogue WHERE name = {} EXCEPT SELECT {names} FROM {}",
        table(&lookup.table),
        values.collect::<Vec<_>>().join(", "),
        literal(&lookup.name),
        table(&lookup.table)
    )
}

impl Statements<'_> {
    /// The statements that fill the relation's table with the expected rows.
    pub fn fill(&self) -> Vec<String> {
        let relation = self.relation();
        let mut from = format!("{} s", expected(relation));
        let (mut names, mut values) = (Vec::new(), Vec::new());
        if let Some(e) = relation.enclosing {
            from += &format!(" JOIN oracle.found{e} p ON p.id = s.pid");
            for (parent, reference) in relation.parent.iter().zip(self.parent_references()) {
                names.push(quote(parent));
                values.push(format!("p.{reference}"));
            }
        }
        for (c, column) in relation.columns.iter().enumerate() {
            let ty = self.ty(&relation.table, &column.name);
            names.push(quote(&column.name));
            values.push(match (&column.lookup, ty.base.as_str()) {
                (Some((lookup, _)), _) => {
                    let lookup = &self.mapping.lookups[*lookup];
                    let key = catalogue_key(self.types, &lookup.table, &lookup.key);
                    let (of, id) = (table(&lookup.table), quote(&lookup.id));
                    from += &format!(
                        " LEFT JOIN {of} l{c} ON {} = s.cols -> {c}",
                        key.replace("l.", &format!("l{c}."))
                    );
                    format!("l{c}.{id}")
                }
                (None, "jsonb") => format!("s.cols -> {c} -> 0"),
                (None, _) => format!("(s.cols ->> {c})::{}", ty.full),
            });
        }
        let (into, names, values) = (table(&relation.table), names.join(", "), values.join(", "));
        vec![format!("INSERT INTO {into} ({names}) SELECT {values} FROM {from}"), self.actual()]
    }
}
