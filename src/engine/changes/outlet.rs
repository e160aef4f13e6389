//! Who is told, and in which order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio_postgres::Transaction;

use crate::engine::plan::{Expected, Taken};
use crate::error::Error;
use crate::postgres::changes::{Change, Labels, Telling, Told, transaction_id};

/// Where the changes of a run go.
pub(crate) struct Outlet {
    listener: Option<mpsc::Sender<Change>>,
    /// The mapping under which they are kept.
    history: Option<i32>,
    /// All that may be done, if that was planned before.
    expected: Option<Expected>,
    turns: Turns,
    /// Changes of transactions of which it is not known whether they were committed.
    unsure: Mutex<Vec<Unsure>>,
}

/// Changes whose COMMIT was not answered.
struct Unsure {
    transaction: String,
    turn: u64,
    changes: Vec<Change>,
    taken: Taken,
}

impl Outlet {
    pub fn new(
        listener: Option<mpsc::Sender<Change>>,
        history: Option<i32>,
        expected: Option<Expected>,
    ) -> Self {
        Outlet { listener, history, expected, turns: Turns::default(), unsure: Mutex::default() }
    }

    /// Whether anybody wants to know. Of a listener that went away nobody does.
    pub fn telling(&self) -> Telling {
        let heard = self.listener.as_ref().is_some_and(|listener| !listener.is_closed());
        let on = heard || self.history.is_some() || self.expected.is_some();
        Telling { on, history: self.history }
    }

    /// Where new catalogue rows are noted.
    pub fn labels(&self) -> Option<Arc<Labels>> {
        self.expected.as_ref().map(|expected| expected.labels.clone())
    }

    /// The documents of which changes were planned that were not made.
    pub fn missed(&self) -> Vec<String> {
        self.expected.as_ref().map_or(Vec::new(), Expected::missed)
    }

    /// Keeps changes, if they are to be kept, and has them wait for the commit, which must follow.
    ///
    /// # Errors
    /// They were not planned, where only what was planned may be done.
    pub async fn pend(
        &self,
        transaction: &Transaction<'_>,
        changes: Vec<Change>,
    ) -> Result<Pending<'_>, Error> {
        let taken = self.expected.as_ref().map(|expected| expected.take(&changes)).transpose()?;
        let mut pending = self.reserve();
        pending.taken = taken.unwrap_or_default();
        self.telling().keep(transaction, &changes).await?;
        if self.listener.is_some() && !changes.is_empty() {
            pending.transaction = Some(transaction_id(transaction).await?);
        }
        pending.changes = changes;
        Ok(pending)
    }

    /// Remembers changes whose transaction may be committed, or not: its COMMIT failed.
    pub fn doubt(&self, mut pending: Pending<'_>) {
        let Some(transaction) = pending.transaction.take() else { return };
        let (changes, taken) = (std::mem::take(&mut pending.changes), std::mem::take(&mut pending.taken));
        // The turn stays open.
        let turn = std::mem::replace(&mut pending.turn, NO_TURN);
        self.unsure().push(Unsure { transaction, turn, changes, taken });
    }

    /// What is in doubt, with the transaction that made it. To be told if that is committed.
    pub fn take_unsure(&self) -> Vec<(String, Pending<'_>)> {
        let unsure = std::mem::take(&mut *self.unsure());
        let pending = |Unsure { transaction, turn, changes, taken }: Unsure| {
            (transaction, Pending { outlet: self, turn, changes, taken, transaction: None })
        };
        unsure.into_iter().map(pending).collect()
    }

    fn unsure(&self) -> MutexGuard<'_, Vec<Unsure>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn of what will be committed, and kept, elsewhere.
    pub fn reserve(&self) -> Pending<'_> {
        let (turn, taken) = (self.turns.take(), Taken::new());
        Pending { outlet: self, turn, changes: Vec::new(), taken, transaction: None }
    }
}

/// Changes that are told if their transaction is committed. Dropped, they never are.
pub(crate) struct Pending<'o> {
    outlet: &'o Outlet,
    turn: u64,
    changes: Vec<Change>,
    /// What was planned.
    taken: Taken,
    /// The server's id of the transaction, where it matters whether that is committed.
    transaction: Option<String>,
}

impl Pending<'_> {
    /// Tells them: the transaction is committed, and its connection is free again.
    pub async fn tell(mut self) {
        let changes = std::mem::take(&mut self.changes);
        self.taken.clear();
        let Some(listener) = self.outlet.listener.as_ref().filter(|_| !changes.is_empty()) else { return };
        self.outlet.turns.wait(self.turn).await;
        for change in changes {
            if listener.send(change).await.is_err() {
                return;
            }
        }
    }

    /// Tells what was committed under a turn that was taken before.
    pub async fn tell_all(mut self, told: Told) {
        self.changes = told.changes;
        self.tell().await;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(expected) = &self.outlet.expected {
            expected.give_back(std::mem::take(&mut self.taken));
        }
        self.outlet.turns.end(self.turn);
    }
}

/// Turns count from 1.
const NO_TURN: u64 = 0;

/// Turns that were taken and are not over.
#[derive(Default)]
struct Turns {
    state: Mutex<(u64, BTreeSet<u64>)>,
    over: Notify,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeSet<u64>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> u64 {
        let (next, open) = &mut *self.lock();
        *next += 1;
        open.insert(*next);
        *next
    }

    /// Waits until all earlier ones are over.
    async fn wait(&self, turn: u64) {
        loop {
            // It listens before it looks, so that no end is missed.
            let over = self.over.notified();
            if self.lock().1.first().is_none_or(|first| *first >= turn) {
                return;
            }
            over.await;
        }
    }

    fn end(&self, turn: u64) {
        self.lock().1.remove(&turn);
        self.over.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_later_waits_for_who_comes_before_even_if_that_one_fails() {
        let turns = Turns::default();
        let [first, second, third] = [turns.take(), turns.take(), turns.take()];
        turns.wait(first).await;
        let waits = turns.wait(third);
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        turns.end(second);
        assert!(futures_util::poll!(&mut waits).is_pending());
        turns.end(first);
        waits.await;
    }
}
