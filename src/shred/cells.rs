//! The cells of a row: values of the document, encoded; constants; ids of catalogue rows.

use std::borrow::Cow;

use super::fault::Fault;
use super::item::{Found, Item};
use super::{CatalogueRow, Conversion, Shredder};
use crate::fingerprint::comparison_tuple;
use crate::json::Json;
use crate::mapping::{Column, LookupIx, Missing, Path, Source, TextForm, WhenAbsent};
use crate::row::{Cell, Tuple};
use crate::value::{self, ColumnType, Encoded, ValueError, in_form, resized};

/// A cell that could not be filled as asked.
pub(super) enum Hole {
    Error(Fault),
    /// The catalogue row is missing and the mapping says to leave the reference out.
    Skipped,
    /// The catalogue row, with this key, is missing and may not be inserted.
    Lacking(LookupIx, Tuple),
}

impl<T: Into<Fault>> From<T> for Hole {
    fn from(fault: T) -> Self {
        Hole::Error(fault.into())
    }
}

impl Shredder<'_> {
    /// Whether a column refers to a catalogue that gets the rows it lacks. What fails beside such a reference is then
    /// found before a row is inserted for nothing.
    pub(super) fn inserts(&self, column: &Column) -> bool {
        matches!(column.source, Source::Lookup { lookup, .. } if self.mapping.lookups[lookup].missing == Missing::Insert)
    }

    pub(super) fn cell<'b>(
        &mut self,
        column: &Column,
        ty: &ColumnType,
        item: &Item<'_>,
        bytes: &'b mut Vec<u8>,
    ) -> Result<Cell<'b>, Hole> {
        match &column.source {
            Source::Path { paths, zone } => match item.first(paths)? {
                Found::Absent if column.when_absent == WhenAbsent::Keep => Ok(Cell::Kept),
                Found::Absent => Ok(Cell::Null),
                Found::Value(json) => {
                    let filled = self.encode(&json, ty, zone.as_deref(), column.text, bytes);
                    Ok(if filled? { Cell::Value(bytes) } else { Cell::Null })
                }
            },
            Source::Constant { value } => {
                let filled = self.encode(&value.json(), ty, None, column.text, bytes);
                Ok(if filled? { Cell::Value(bytes) } else { Cell::Null })
            }
            Source::Lookup { lookup, matching } => {
                self.reference(*lookup, matching, (column, ty), item, bytes)
            }
            // Filled in once it is known which rows there are.
            Source::Position { .. } => Ok(Cell::Null),
        }
    }

    /// Encodes one value. False for null, and for a question.
    fn encode(
        &mut self,
        json: &Json<'_>,
        ty: &ColumnType,
        zone: Option<&str>,
        form: TextForm,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let (json, holds_nul) =
            if form.is_as_given() { (Cow::Borrowed(json), false) } else { in_form(json, form) };
        self.set.nuls += u32::from(holds_nul);
        let text = match value::encode(&json, ty, zone, bytes).map_err(|ValueError(message)| message)? {
            Encoded::Null => return Ok(false),
            Encoded::Value => return Ok(true),
            Encoded::Ask(text) => text,
        };
        let expression = match zone {
            Some(_) => format!("{}((v::timestamp AT TIME ZONE $2)::{})", ty.send, ty.sql),
            None => format!("{}({})", ty.send, ty.input),
        };
        let conversion = Conversion { expression, zone: zone.map(str::to_owned), text };
        match self.answers.conversions.get(&conversion) {
            Some(Ok(answer)) => {
                bytes.extend_from_slice(answer);
                Ok(true)
            }
            Some(Err(message)) => Err(message.clone()),
            None => {
                self.questions.conversions.insert(conversion);
                self.asked.conversions += 1;
                Ok(false)
            }
        }
    }

    /// The id of the catalogue row that an item refers to.
    fn reference<'b>(
        &mut self,
        ix: LookupIx,
        matching: &[Path],
        (column, ty): (&Column, &ColumnType),
        item: &Item<'_>,
        bytes: &'b mut Vec<u8>,
    ) -> Result<Cell<'b>, Hole> {
        let (lookup, table) = (&self.mapping.lookups[ix], &self.schema.lookups[ix]);
        let asked = self.asked.conversions;
        let mut key = Tuple::default();
        let (mut nulls, mut missing, mut absents) = (0, None, 0);
        for (path, column) in matching.iter().zip(&table.key) {
            let found = item.find(path).map_err(|message| Fault::at(path, message))?;
            absents += usize::from(matches!(found, Found::Absent));
            if !self.push(&mut key, path, &column.ty, lookup.text_form(&column.name), item)? {
                nulls += 1;
                if !lookup.nullable.contains(&column.name) {
                    missing.get_or_insert((path, &column.name));
                }
            }
        }
        match () {
            () if self.asked.conversions > asked => return Ok(Cell::Null),
            () if absents == matching.len() && column.when_absent == WhenAbsent::Keep => {
                return Ok(Cell::Kept);
            }
            () if nulls == matching.len() => return Ok(Cell::Null),
            () => {}
        }
        if let Some((path, name)) = missing {
            return Err(Fault::part_of_key(path, lookup, name).into());
        }
        let types: Vec<&ColumnType> = table.key.iter().map(|column| &column.ty).collect();
        let compared = comparison_tuple(&types, &key);
        match self.answers.lookups.get(ix).and_then(|known| known.get(&compared)) {
            Some(Some(id)) => {
                let narrow =
                    || format!("refers to an id of `{}` that is out of range for {}", lookup.name, ty.sql);
                bytes.extend_from_slice(&resized(id, &table.id.ty.kind, &ty.kind).ok_or_else(narrow)?);
                Ok(Cell::Value(bytes))
            }
            Some(None) if lookup.missing == Missing::Skip => Err(Hole::Skipped),
            Some(None) if lookup.missing == Missing::Insert && self.answers.leaves_missing => {
                Err(Hole::Lacking(ix, compared))
            }
            Some(None) => Err(Fault::unknown(item, matching, lookup).into()),
            None => {
                let mut columns = Tuple::default();
                if lookup.missing == Missing::Insert {
                    for ((name, path), column) in lookup.columns.iter().zip(&table.columns) {
                        self.push(&mut columns, path, &column.ty, lookup.text_form(name), item)?;
                    }
                }
                self.asked.lookups += 1;
                if self.asked.conversions == asked {
                    self.questions.lookups.entry((ix, compared)).or_insert(CatalogueRow { key, columns });
                }
                Ok(Cell::Null)
            }
        }
    }

    /// Appends the value at `path` to a tuple. False where it is null or not known yet.
    fn push(
        &mut self,
        tuple: &mut Tuple,
        path: &Path,
        ty: &ColumnType,
        form: TextForm,
        item: &Item<'_>,
    ) -> Result<bool, Hole> {
        let mut bytes = Vec::new();
        let at = |message| Fault::at(path, message);
        let filled = match item.find(path).map_err(at)? {
            Found::Absent => false,
            Found::Value(json) => self.encode(&json, ty, None, form, &mut bytes).map_err(at)?,
        };
        tuple.push_value(filled.then_some(&bytes));
        Ok(filled)
    }
}
