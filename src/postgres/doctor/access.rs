//! What the role may do, and which rows it sees.

use tokio_postgres::Transaction;

use super::{Exam, Severity, ask};
use crate::error::Error;
use crate::postgres::quote;

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    row_security(exam, transaction).await
}

async fn row_security(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    for row in ask(transaction, ROW_SECURITY, &exam.oids()).await? {
        let (oid, without): (u32, Vec<String>) = (row.get("table"), row.get("without"));
        let is_written = exam.written_oids().contains(&oid);
        if !row.get::<_, bool>("active") {
            let message =
                format!("row-level security does not apply to the role, {}", row.get::<_, &str>("why"));
            exam.about(Severity::Note, "row_security", oid, message)
                .costs("none: rows of all tenants are seen and written, by COPY too");
            continue;
        }
        let policies: Vec<String> = row.get("policies");
        let message = format!("row-level security applies to the role: {}", named(&policies));
        let finding = exam.about(Severity::Warning, "row_security", oid, message);
        finding.costs(match is_written {
            true => {
                "no COPY: new rows go by INSERT. A row that a policy hides counts as not there: it is inserted \
                     again, or its unique value refuses the document"
            }
            false => "a catalogue's row that a policy hides counts as missing",
        });
        finding.advise(
            "sync with a role that sees all rows of the table (its owner, or BYPASSRLS), or whose policies \
                        hide none that documents have",
        );
        let needed = |command: &String| exam.needs(oid, command);
        let without: Vec<String> = without.into_iter().filter(needed).collect();
        if !without.is_empty() {
            let commands = without.join(", ");
            let message = format!("no policy lets the role {commands}: rows are hidden, or refused");
            exam.about(Severity::Error, "row_policy", oid, message).advise(format!(
                "CREATE POLICY … FOR {} TO {}",
                without[0],
                quote(row.get("role"))
            ));
        }
    }
    Ok(())
}

fn named(policies: &[String]) -> String {
    match policies {
        [] => "there is no policy for it".to_owned(),
        [one] => format!("policy {one}"),
        many => format!("policies {}", many.join(", ")),
    }
}

/// Without a permissive policy for a command no row can be had by it.
const ROW_SECURITY: &str = "
WITH mine AS (
    SELECT p.* FROM pg_policy p WHERE p.polrelid = ANY ($1) AND EXISTS (
        SELECT FROM unnest(p.polroles) AS o (role) WHERE o.role = 0 OR pg_has_role(o.role, 'USAGE')))
SELECT c.oid AS table, row_security_active(c.oid) AS active, r.rolname::text AS role,
       CASE WHEN r.rolsuper THEN 'a superuser' WHEN r.rolbypassrls THEN 'which has BYPASSRLS'
            ELSE 'which owns the table' END AS why,
       (SELECT coalesce(array_agg(quote_ident(p.polname) ORDER BY p.polname), '{}') FROM mine p WHERE p.polrelid = c.oid) AS policies,
       (SELECT coalesce(array_agg(k.name ORDER BY k.place), '{}')
        FROM (VALUES (1, 'r', 'SELECT'), (2, 'a', 'INSERT'), (3, 'w', 'UPDATE'), (4, 'd', 'DELETE')) AS k (place, code, name)
        WHERE NOT EXISTS (SELECT FROM mine p WHERE p.polrelid = c.oid AND p.polpermissive
                          AND p.polcmd::text IN ('*', k.code))) AS without
FROM pg_class c JOIN pg_roles r ON r.rolname = current_user
WHERE c.oid = ANY ($1) AND c.relrowsecurity ORDER BY 1";
