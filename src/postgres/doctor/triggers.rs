//! Triggers of the tables: what they may do to rows that are written.

use std::collections::BTreeSet;

use tokio_postgres::{Row, Transaction};

use super::{Exam, Severity, ask};
use crate::error::Error;
use crate::mapping::RelationKind;

struct Trigger {
    table: u32,
    name: String,
    function: String,
    /// `tgenabled`: as in the catalog.
    enabled: char,
    /// `tgtype`: bits as in the catalog.
    kind: i16,
    /// The function's text, if it is PL/pgSQL.
    body: Option<String>,
}

impl Trigger {
    fn is_row(&self) -> bool {
        self.kind & 1 != 0
    }

    fn is_before(&self) -> bool {
        self.kind & 2 != 0
    }

    fn writes(&self) -> bool {
        self.kind & (4 | 16) != 0
    }

    /// `INSERT or UPDATE`.
    fn events(&self) -> String {
        let events = [(4, "INSERT"), (16, "UPDATE"), (8, "DELETE"), (32, "TRUNCATE")];
        let events = events.iter().filter(|event| self.kind & event.0 != 0).map(|event| event.1);
        events.collect::<Vec<_>>().join(" or ")
    }
}

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    for trigger in ask(transaction, TRIGGERS, &exam.written_oids()).await?.iter().map(trigger) {
        report(exam, &trigger);
    }
    for row in ask(transaction, UNCHECKED, &exam.oids()).await? {
        let (oid, name): (u32, String) = (row.get("table"), row.get("name"));
        let message = format!("the triggers that check foreign key {name} are disabled");
        let table = exam.by_oid(oid).map(|table| table.name.clone()).unwrap_or_default();
        let finding = exam.about(Severity::Warning, "unchecked_key", oid, message);
        finding.costs("rows may refer to nothing, and rows that should go along stay");
        let caution = "a superuser's; it enables all triggers, and does not look at the rows that are there";
        finding.mend_with_care(format!("ALTER TABLE {table} ENABLE TRIGGER ALL"), caution);
    }
    Ok(())
}

fn report(exam: &mut Exam<'_>, trigger: &Trigger) {
    let (name, function, events) = (&trigger.name, &trigger.function, trigger.events());
    if matches!(trigger.enabled, 'D' | 'R') {
        let why = if trigger.enabled == 'D' { "is disabled" } else { "fires for replicated rows only" };
        let message = format!("trigger {name} ({function}) {why}: a sync does not fire it");
        exam.about(Severity::Note, "disabled_trigger", trigger.table, message);
        return;
    }
    if !(trigger.is_row() && trigger.is_before()) {
        let when = if trigger.is_before() { "before" } else { "after" };
        let each = if trigger.is_row() { "each row" } else { "each statement" };
        let message =
            format!("trigger {name} ({function}) fires {when} {events}, for {each} that a sync writes");
        exam.about(Severity::Note, "trigger", trigger.table, message)
            .costs("what it does is part of the batch's transaction: its time, its locks, its errors");
        return;
    }
    if trigger.writes() {
        rewrites(exam, trigger, &events);
    } else {
        let message =
            format!("trigger {name} ({function}) fires before {events}, and may keep rows from going");
        exam.about(Severity::Warning, "suppressing_trigger", trigger.table, message)
            .costs("a document fails of which a row should go and stays, by the trigger's name")
            .advise("its function must RETURN OLD (NEW is NULL there), or raise an error that says why");
    }
}

/// A trigger before rows are written.
fn rewrites(exam: &mut Exam<'_>, trigger: &Trigger, events: &str) {
    let (name, function) = (&trigger.name, &trigger.function);
    let assigned = trigger.body.as_deref().map(assigned);
    let known = known_columns(exam, trigger.table);
    let is_known = |name: &&String| known.contains(*name);
    let list = |names: Vec<&String>| {
        names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    };
    let fires = format!("trigger {name} ({function}) fires before {events}");
    match assigned {
        Some(Assigned { columns, is_all: true }) if !columns.iter().any(|name| known.contains(name)) => {
            let what = match columns.is_empty() {
                true => "and its text assigns nothing".to_owned(),
                false => {
                    format!("and assigns {}, which the mapping does not name", list(columns.iter().collect()))
                }
            };
            exam.about(Severity::Note, "trigger", trigger.table, format!("{fires}, {what}"))
                .costs("what it does is part of the batch's transaction");
        }
        Some(Assigned { columns, .. }) if columns.iter().any(|name| known.contains(name)) => {
            let mapped: Vec<&String> = columns.iter().filter(is_known).collect();
            let named: Vec<String> = mapped.iter().map(|&name| name.clone()).collect();
            let message = format!("{fires}, and assigns {}, which documents fill", list(mapped));
            let finding = exam.about(Severity::Warning, "rewriting_trigger", trigger.table, message);
            finding.columns(&named);
            finding.costs(
                "no COPY: new rows go by INSERT and are read back, and of those that it changed both forms are \
                 remembered; a document fails whose key it changes",
            );
            finding.advise(
                "where that takes too long: have the feed say what the trigger makes of it, or leave the column out of \
                 the mapping",
            );
        }
        _ => {
            let message = format!("{fires}, and may rewrite or suppress rows");
            exam.about(Severity::Warning, "rewriting_trigger", trigger.table, message)
                .costs(
                    "no COPY: new rows go by INSERT and are read back, and of those that it changes both forms are \
                     remembered; a document fails whose key it changes, or of which it suppresses a row",
                )
                .advise("look at what it does with mapped columns, and whether it returns NULL");
        }
    }
}

/// The columns of a table that documents fill.
fn known_columns(exam: &Exam<'_>, oid: u32) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for (relation, _) in exam.relations().filter(|(_, table)| table.oid == oid) {
        known.extend(relation.columns.iter().map(|column| column.name.clone()));
        known.extend(relation.parent.iter().chain(&relation.id).cloned());
        if relation.kind == RelationKind::Root {
            known.extend(exam.mapping.sync.marks().map(str::to_owned));
        }
    }
    for lookup in
        exam.mapping.lookups.iter().filter(|lookup| exam.table(&lookup.table).is_some_and(|t| t.oid == oid))
    {
        known.extend(lookup.key.iter().cloned().chain([lookup.id.clone()]));
        known.extend(lookup.columns.iter().map(|column| column.0.clone()));
    }
    known
}

/// What the text of a function assigns to the new row.
struct Assigned {
    columns: BTreeSet<String>,
    /// Whether nothing else can happen to the row: it is always returned, and never assigned as a whole.
    is_all: bool,
}

/// Reads PL/pgSQL without its comments and literals: words, and `:=` or `=` after `NEW.column` where a statement begins.
fn assigned(body: &str) -> Assigned {
    let words = words(body);
    let at = |place: usize| words.get(place).map_or("", String::as_str);
    let is_start =
        |place: usize| place == 0 || [";", "begin", "then", "else", "loop"].contains(&at(place - 1));
    let (mut columns, mut is_all) = (BTreeSet::new(), true);
    for place in 0..words.len() {
        let is_new = at(place) == "new";
        match at(place) {
            "return" => is_all &= at(place + 1) == "new",
            "into" | "execute" | "perform" | "call" => is_all = false,
            _ if is_new && at(place + 1) == "." && is_start(place) => {
                columns.insert(at(place + 2).trim_matches('"').to_owned());
            }
            // The row as a whole: `NEW := …`, `f(NEW)`; but not `RETURN NEW`, nor a column that is read.
            _ if is_new && at(place + 1) != "." && (place == 0 || at(place - 1) != "return") => {
                is_all = false
            }
            _ => {}
        }
    }
    Assigned { columns, is_all }
}

/// Words in small letters, quoted names as they are, each other sign by itself.
fn words(body: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        let skip =
            |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
        let length = match first {
            _ if rest.starts_with("--") => skip(2, "\n"),
            _ if rest.starts_with("/*") => skip(2, "*/"),
            '\'' => skip(1, "'"),
            '"' => skip(1, "\""),
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let word = &rest[..length];
        match first {
            '"' => words.push(word.to_owned()),
            _ if word.starts_with("--")
                || word.starts_with("/*")
                || first == '\''
                || first.is_whitespace() => {}
            _ => words.push(word.to_lowercase()),
        }
        rest = &rest[length..];
    }
    words
}

fn trigger(row: &Row) -> Trigger {
    Trigger {
        table: row.get("table"),
        name: row.get("name"),
        function: row.get("function"),
        enabled: row.get::<_, &str>("enabled").chars().next().unwrap_or('O'),
        kind: row.get("kind"),
        body: row.get("body"),
    }
}

/// Those of partitions, too, but each once.
const TRIGGERS: &str = "
SELECT t.oid AS table, quote_ident(g.tgname) AS name, g.tgenabled::text AS enabled, g.tgtype AS kind,
       quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS function, CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END AS body
FROM unnest($1::oid[]) AS t (oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid::regclass)) AS part (oid)
JOIN pg_trigger g ON g.tgrelid = part.oid AND NOT g.tgisinternal AND g.tgparentid = 0
JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
ORDER BY 1, 2";

const UNCHECKED: &str = "
SELECT DISTINCT g.tgrelid AS table, quote_ident(c.conname) AS name
FROM pg_trigger g JOIN pg_constraint c ON c.oid = g.tgconstraint AND c.contype = 'f'
WHERE g.tgrelid = ANY ($1) AND g.tgisinternal AND g.tgenabled = 'D' ORDER BY 1, 2";

#[cfg(test)]
mod tests {
    use super::assigned;

    fn columns(body: &str) -> (Vec<String>, bool) {
        let found = assigned(body);
        (found.columns.into_iter().collect(), found.is_all)
    }

    #[test]
    fn assignments_are_read_but_not_those_in_comments_and_literals() {
        let body = "BEGIN\n -- NEW.no := 1;\n NEW.a := lower(NEW.b); /* NEW.no := 2; */\n\
                    IF NEW.c = 'x; NEW.no := 1' THEN new.\"D\" = 5; END IF; RETURN NEW; END";
        assert_eq!(columns(body), (vec!["D".to_owned(), "a".to_owned()], true));
    }

    #[test]
    fn what_may_suppress_or_replace_a_row_is_not_taken_for_harmless() {
        for body in [
            "BEGIN IF NEW.a THEN RETURN NULL; END IF; RETURN NEW; END",
            "BEGIN SELECT 1 INTO NEW.a; RETURN NEW; END",
            "BEGIN NEW := f(NEW); RETURN NEW; END",
            "BEGIN RETURN OLD; END",
        ] {
            assert!(!assigned(body).is_all, "{body}");
        }
        assert!(columns("BEGIN NEW.updated_at = now(); RETURN NEW; END").1);
    }
}
