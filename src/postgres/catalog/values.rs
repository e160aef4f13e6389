//! Constants that a column cannot hold, and forms of text for columns that hold none.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::check::Checker;
use super::read::CatalogTable;
use crate::error::{Error, ErrorKind};
use crate::mapping::{Column, Scalar, Source, TextForm};
use crate::postgres::quote;
use crate::schema::PhysicalColumn;
use crate::value::{ColumnType, Encoded, Kind, ValueError, encode};

/// A constant of which only the server can say whether its column can hold it.
pub(super) struct Asked {
    place: String,
    what: String,
    /// SQL that converts the text `v`.
    expression: String,
    text: String,
}

impl Checker<'_> {
    /// What a column of a relation holds must be possible in its type.
    pub(super) fn value(&mut self, place: &str, column: &Column, physical: &PhysicalColumn) {
        let Source::Constant { value } = &column.source else {
            return self.text_form(place, physical, column.text);
        };
        let ty = &physical.ty;
        let what = misfit(&physical.name, ty, value);
        match encode(&value.json(), ty, None, &mut Vec::new()) {
            Ok(Encoded::Null | Encoded::Value) => {}
            Ok(Encoded::Ask(text)) => {
                let expression = format!("{}({})", ty.send, ty.input);
                self.asked.push(Asked { place: place.to_owned(), what, expression, text });
            }
            Err(ValueError(message)) => {
                // What would mend a value of a document does not mend a constant.
                let message = message.split_once("; ").map_or(message.as_str(), |(message, _)| message);
                self.fault(place, format!("{what}: {message}; {MEND}"));
            }
        }
    }

    /// Columns of a catalogue that alter text must hold some.
    pub(super) fn text_forms(&mut self, place: &str, table: &CatalogTable, forms: &[(String, TextForm)]) {
        for (name, form) in forms {
            if let Some(column) = table.column(name) {
                let physical = PhysicalColumn { name: name.clone(), ty: column.ty.clone() };
                self.text_form(&format!("{place}.columns.{name}"), &physical, *form);
            }
        }
    }

    fn text_form(&mut self, place: &str, column: &PhysicalColumn, form: TextForm) {
        if !may_hold_text(&column.ty.kind) && !form.is_as_given() {
            let message =
                format!("column {} is {}, in which there is no text", quote(&column.name), column.ty.sql);
            self.fault(place, format!("{message}; leave nul and nfc out"));
        }
    }

    /// Asks the server about the constants that are left to it.
    pub(super) async fn ask(&mut self, client: &Client) -> Result<(), Error> {
        for Asked { place, what, expression, text } in std::mem::take(&mut self.asked) {
            let sql = format!("SELECT {expression} FROM (SELECT $1) AS t (v)");
            match client.query_typed(&sql, &[(&text, Type::TEXT)]).await.map_err(Error::from) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Setup) => {
                    self.fault(&place, format!("{what}: {error}; {MEND}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn may_hold_text(kind: &Kind) -> bool {
    match kind {
        Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float8 | Kind::Numeric(_) => false,
        Kind::Date | Kind::Timestamp(_) | Kind::Timestamptz(_) | Kind::Uuid => false,
        Kind::Text | Kind::Varchar(_) | Kind::Jsonb | Kind::Json | Kind::Enum(_) => true,
        Kind::Array(_) | Kind::Composite(_) | Kind::Server => true,
        Kind::Domain(base) => may_hold_text(&base.kind),
    }
}

const MEND: &str = "correct value, or the column's type";

fn misfit(name: &str, ty: &ColumnType, value: &Scalar) -> String {
    format!("column {} is {}, which cannot hold {value}", quote(name), ty.sql)
}
