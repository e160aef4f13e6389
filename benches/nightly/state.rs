//! What the tables say at the end of a run, whatever the order of rows and the ids they have: two contestants that
//! did the same have the same here.

use tokio_postgres::Client;

use crate::Outcome;
use crate::rows::{CATALOGUES, PARENT, RELATIONS, Relation};

/// Name, number of rows and sum of hashes of each table.
pub type State = Vec<(String, i64, String)>;

/// Reads it.
pub async fn read(client: &Client) -> Outcome<State> {
    let relations = RELATIONS.iter().map(|relation| (relation.table, content(relation)));
    let catalogues =
        CATALOGUES.iter().map(|catalogue| (catalogue.table, (catalogue.key.join(", "), String::new())));
    let mut state = State::new();
    for (table, (columns, joins)) in relations.chain(catalogues) {
        let sql = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text
             FROM {table} r {joins}"
        );
        let row = client.query_one(&sql, &[]).await?;
        state.push((table.to_owned(), row.get(0), row.get(1)));
    }
    Ok(state)
}

/// The values of a row, with what ids refer to in place of these; and the tables that this takes.
fn content(relation: &Relation) -> (String, String) {
    let mut joins = String::new();
    let mut values = Vec::new();
    for (at, name) in relation.names().into_iter().enumerate() {
        match relation.references.iter().find(|(column, _)| *column == at) {
            None => values.push(format!("r.{name}")),
            Some((_, catalogue)) => {
                let catalogue = &CATALOGUES[*catalogue];
                joins += &format!(" LEFT JOIN {} c{at} ON c{at}.id = r.{name}", catalogue.table);
                values.extend(catalogue.key.iter().map(|key| format!("c{at}.{key}")));
            }
        }
    }
    if relation.table != RELATIONS[0].table {
        joins += &format!(" JOIN convocatoria p ON p.id = r.{PARENT}");
        values.push("p.codigo_bdns".to_owned());
    }
    (values.join(", "), joins)
}
