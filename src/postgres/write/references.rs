//! What rows hold that refer to the enclosing one.

use super::Writer;
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::postgres::fetch::Widths;
use crate::postgres::quote;

impl Writer<'_> {
    /// Whether what the rows of a relation refer to fits the columns that are to hold it.
    pub(super) fn check_references(&self, ix: RelationIx) -> Result<(), Error> {
        let Some(outer) = self.mapping.relations[ix].enclosing else { return Ok(()) };
        let (table, target) = (&self.schema.tables[ix], &self.schema.tables[outer]);
        let widths = Widths::of(table, target);
        let mut parents =
            self.sides[ix].source.iter().map(|row| &self.references[outer][row.parent as usize]);
        if !widths.differ() || parents.all(|parent| widths.reference(parent.clone()).is_some()) {
            return Ok(());
        }
        let pairs = table.parent.iter().zip(target.referable_columns());
        let pairs = pairs.filter(|(own, to)| own.ty.sql != to.ty.sql);
        let mends = pairs.map(|(own, to)| format!("ALTER COLUMN {} TYPE {}", quote(&own.name), to.ty.sql));
        let message = format!(
            "the id of the enclosing row is out of range for what refers to it: ALTER TABLE {} {}",
            table.name,
            mends.collect::<Vec<_>>().join(", ")
        );
        Err(Error::new(ErrorKind::Rejected, message).in_relation(&self.mapping.relations[ix].name))
    }
}
