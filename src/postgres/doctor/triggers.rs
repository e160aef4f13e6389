//! Triggers of the tables: what they may do to rows that are written.

use std::collections::BTreeSet;

use tokio_postgres::Transaction;

use super::{Exam, Severity, ask};
use crate::error::Error;
use crate::mapping::RelationKind;
use crate::postgres::catalog::CatalogTrigger;
use crate::schema::Trigger;

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    for oid in exam.written_oids() {
        let triggers = exam.by_oid(oid).map(|table| table.triggers.clone()).unwrap_or_default();
        triggers.iter().for_each(|(trigger, effect)| report(exam, oid, trigger, effect.as_ref()));
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

/// `effect`: what it can do to what a sync sends.
fn report(exam: &mut Exam<'_>, oid: u32, trigger: &CatalogTrigger, effect: Option<&Trigger>) {
    let named = format!("trigger \"{}\" ({})", trigger.name, trigger.function);
    if !trigger.fires {
        let why = match trigger.enabled {
            'D' => "is disabled",
            'R' => "fires for replicated rows only",
            _ => "does not fire while session_replication_role is replica",
        };
        let message = format!("{named} {why}: a sync does not fire it");
        exam.about(Severity::Note, "disabled_trigger", oid, message);
        return;
    }
    let when = if trigger.is_before() { "before" } else { "after" };
    let fires = format!("{named} fires {when} {}", trigger.events());
    match effect {
        Some(effect) if !effect.before => updates(exam, oid, effect, &fires),
        Some(effect) if effect.insert || effect.update => rewrites(exam, oid, trigger, effect, &fires),
        Some(_) => {
            let message = format!("{fires}, and may keep rows from going");
            exam.about(Severity::Warning, "suppressing_trigger", oid, message)
                .costs("a document fails of which a row should go and stays, by the trigger's name")
                .advise("its function must RETURN OLD (NEW is NULL there), or raise an error that says why");
        }
        None if trigger.is_before() && trigger.is_row() => {
            exam.about(Severity::Note, "trigger", oid, format!("{fires}, which a sync does not send"));
        }
        None => {
            let each = if trigger.is_row() { "each row" } else { "each statement" };
            let message = format!("{fires}, for {each} that a sync writes");
            exam.about(Severity::Note, "trigger", oid, message)
                .costs("what it does is part of the batch's transaction: its time, its locks, its errors");
        }
    }
}

/// A trigger after rows are written whose text updates the table.
fn updates(exam: &mut Exam<'_>, oid: u32, effect: &Trigger, fires: &str) {
    let cost = cost_of_changes(exam, oid, effect);
    let message = format!("{fires}, and by its text may update rows of the table");
    exam.about(Severity::Warning, "rewriting_trigger", oid, message)
        .costs(cost)
        .advise("look at what it does with mapped columns");
}

/// What it costs that rows may be stored otherwise than they were sent.
fn cost_of_changes(exam: &Exam<'_>, oid: u32, effect: &Trigger) -> String {
    let is_relation = exam.relation_oids().contains(&oid);
    let read_back = match (is_relation, effect.insert) {
        (false, _) => {
            return "a row that is missing and whose key it changes is not found again: documents fail"
                .to_owned();
        }
        (true, true) => "no COPY: new rows go by INSERT and are read back",
        (true, false) => "rows that are updated are read back; new ones go by COPY",
    };
    format!(
        "{read_back}, and of those that it changes both forms are remembered; a document fails whose key it changes"
    )
}

/// A trigger before rows are written.
fn rewrites(exam: &mut Exam<'_>, oid: u32, trigger: &CatalogTrigger, effect: &Trigger, fires: &str) {
    let cost = cost_of_changes(exam, oid, effect);
    let known = known_columns(exam, oid);
    let list =
        |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let Some(Assigned { columns, is_all }) = trigger.body.as_deref().map(assigned) else {
        return unknown(exam, oid, fires, cost);
    };
    let (mapped, others): (Vec<String>, Vec<String>) =
        columns.into_iter().partition(|name| known.contains(name));
    if !mapped.is_empty() {
        let message = format!("{fires}, and assigns {}, which documents fill", list(&mapped));
        let finding = exam.about(Severity::Warning, "rewriting_trigger", oid, message);
        finding.columns(&mapped).costs(cost).advise(
            "where that takes too long: have the feed say what the trigger makes of it, or leave the column out of \
             the mapping",
        );
    } else if is_all {
        let what = match others.is_empty() {
            true => "and its text assigns nothing".to_owned(),
            false => format!("and assigns {}, which the mapping does not name", list(&others)),
        };
        let is_copied = !effect.insert || !exam.relation_oids().contains(&oid);
        exam.about(Severity::Note, "trigger", oid, format!("{fires}, {what}")).costs(match is_copied {
            true => "what it does is part of the batch's transaction",
            false => "no COPY: new rows go by INSERT and are read back, since only then it is sure",
        });
    } else {
        unknown(exam, oid, fires, cost);
    }
}

fn unknown(exam: &mut Exam<'_>, oid: u32, fires: &str, cost: String) {
    exam.about(
        Severity::Warning,
        "rewriting_trigger",
        oid,
        format!("{fires}, and may rewrite or suppress rows"),
    )
    .costs(format!("{cost}, or of which it suppresses a row"))
    .advise("look at what it does with mapped columns, and whether it returns NULL");
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
