//! Triggers that change what they are given, on one or two columns of a case.

use fastrand::Rng;

use super::shape::{Place, Shape, name};
use super::value::Ty;

/// Table and column of each trigger.
pub struct Rewriting(pub Vec<(String, String)>);

impl Rewriting {
    /// In every second case, where there is a text that identifies nothing by itself.
    pub fn draw(shape: &Shape, seed: u64) -> Option<Self> {
        if seed % 2 == 0 {
            return None;
        }
        let mut candidates = Vec::new();
        for rel in &shape.relations {
            let columns = rel.columns.iter().enumerate().filter(|(at, col)| {
                let is_place = matches!(col.place, Place::Position(_) | Place::Index);
                col.ty == Ty::Text && col.catalogue.is_none() && !rel.key.contains(at) && !is_place
            });
            candidates.extend(columns.map(|(_, col)| (name(&rel.table), name(&col.name))));
        }
        // Of its own, so that what is drawn of a case stays what it was.
        let mut rng = Rng::with_seed(seed.wrapping_mul(3));
        let count = rng.usize(1..3).min(candidates.len());
        let chosen = (0..count).map(|_| candidates.swap_remove(rng.usize(..candidates.len()))).collect();
        (count > 0).then_some(Rewriting(chosen))
    }

    /// A text gets a mark at its end, once: so what was sent can be told from what is stored.
    pub fn ddl(&self) -> String {
        let trigger = |(at, (table, column)): (usize, &(String, String))| {
            format!(
                "CREATE FUNCTION rewrite_{at}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.{column} NOT LIKE '%~' THEN NEW.{column} := NEW.{column} || '~'; END IF; RETURN NEW;
                 END $$;
                 CREATE TRIGGER rewrite_{at} BEFORE INSERT OR UPDATE ON {table}
                     FOR EACH ROW EXECUTE FUNCTION rewrite_{at}();"
            )
        };
        self.0.iter().enumerate().map(trigger).collect()
    }

    /// Makes of what is stored what was sent, past all triggers; fails if there is anything that was not rewritten.
    pub fn undo(&self) -> String {
        let undo = |(table, column): &(String, String)| {
            format!(
                "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM {table} WHERE {column} NOT LIKE '%~'); END $$;
                 UPDATE {table} SET {column} = left({column}, -1) WHERE {column} IS NOT NULL;"
            )
        };
        format!("SET session_replication_role = replica; {}", self.0.iter().map(undo).collect::<String>())
    }

    /// And back.
    pub fn redo(&self) -> String {
        let redo = |(table, column): &(String, String)| {
            format!("UPDATE {table} SET {column} = {column} || '~' WHERE {column} IS NOT NULL;")
        };
        format!("SET session_replication_role = replica; {}", self.0.iter().map(redo).collect::<String>())
    }
}
