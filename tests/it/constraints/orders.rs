//! Whether some order of writes leads from one state to another: all are tried.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::shape::{Purpose, Shape};
use super::state::{Change, State};
use super::stored::{self, Stored};
use crate::support::database::describe;

/// More rows are not tried: sets of them are gone through.
pub const CHANGES_MAX: usize = 9;

/// An order in which the statements of the changes, one a row, lead from `before` to `after`, each constraint checked
/// as late as it can be.
///
/// # Errors
/// What the database refuses that it should not.
pub async fn search(
    client: &Client,
    shape: &Shape,
    (before, after): (&State, &State),
) -> Result<Option<Vec<String>>, String> {
    let changes = before.changes(after);
    begin(client, shape, before).await?;
    let mut search =
        Search { client, shape, changes: &changes, after, dead: HashSet::new(), order: Vec::new() };
    let found = search.go(0).await;
    end(client).await?;
    let order = search.order.iter().map(|&at| changes[at].statement(shape)).collect();
    Ok(found?.then_some(order))
}

/// Whether steps lead from `before` to `after`.
///
/// # Errors
/// What the database refuses that it should not.
pub async fn confirms(
    client: &Client,
    shape: &Shape,
    (before, after): (&State, &State),
    steps: &[Change],
) -> Result<bool, String> {
    begin(client, shape, before).await?;
    let mut arrived = true;
    for step in steps {
        arrived = arrived && client.batch_execute(&step.statement(shape)).await.is_ok();
    }
    let arrived = arrived && arrives(client, shape, after).await?;
    end(client).await?;
    Ok(arrived)
}

/// Begins a transaction on tables with these rows.
async fn begin(client: &Client, shape: &Shape, before: &State) -> Result<(), String> {
    let fresh = format!(
        "DROP SCHEMA IF EXISTS orders CASCADE; CREATE SCHEMA orders; SET search_path = orders;
         {}; SET session_replication_role = replica; {}; SET session_replication_role = origin;
         BEGIN; SET CONSTRAINTS ALL DEFERRED",
        shape.ddl(Purpose::Named),
        before.inserts(shape)
    );
    client.batch_execute(&fresh).await.map_err(|error| describe(&error))
}

async fn end(client: &Client) -> Result<(), String> {
    client.batch_execute("ROLLBACK; SET search_path = public").await.map_err(|error| describe(&error))
}

/// Whether the end is valid, and the one that was meant.
async fn arrives(client: &Client, shape: &Shape, after: &State) -> Result<bool, String> {
    if client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.is_err() {
        return Ok(false);
    }
    let stored = Stored::read(client, shape, &stored::rows_of(shape)).await?;
    Ok(stored.lines == after.lines(shape))
}

struct Search<'a> {
    client: &'a Client,
    shape: &'a Shape,
    changes: &'a [Change],
    after: &'a State,
    /// Sets of changes from which nothing leads on, as bits.
    dead: HashSet<u32>,
    order: Vec<usize>,
}

impl Search<'_> {
    /// Goes on from where the changes of a set are done.
    async fn go(&mut self, done: u32) -> Result<bool, String> {
        if done == (1 << self.changes.len()) - 1 {
            return arrives(self.client, self.shape, self.after).await;
        }
        for at in (0..self.changes.len()).filter(|at| done & 1 << at == 0) {
            if self.dead.contains(&(done | 1 << at)) {
                continue;
            }
            let savepoint = format!("s{}", self.order.len());
            let statement = self.changes[at].statement(self.shape);
            let tried = self.client.batch_execute(&format!("SAVEPOINT {savepoint}; {statement}")).await;
            if tried.is_ok() {
                self.order.push(at);
                if Box::pin(self.go(done | 1 << at)).await? {
                    return Ok(true);
                }
                self.order.pop();
                self.dead.insert(done | 1 << at);
            }
            let back = self.client.batch_execute(&format!("ROLLBACK TO {savepoint}")).await;
            back.map_err(|error| describe(&error))?;
        }
        Ok(false)
    }
}
