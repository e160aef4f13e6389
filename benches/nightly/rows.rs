//! A call as rows, with every value as text: what the peers write, and what the smallest edit is found from.
//!
//! It shares no code with rowdelta's shredding, so that equal end states mean something.

use std::borrow::Cow;

use crate::call::{Call, Named, Text};

/// A value as text, or NULL.
pub type Cell<'a> = Option<Cow<'a, str>>;

/// A table that calls have rows in.
pub struct Relation {
    /// Its name.
    pub table: &'static str,
    /// The columns that a document fills, with their types. Below the root a column that refers to the call comes
    /// before them.
    pub columns: &'static [(&'static str, &'static str)],
    /// What refers to a catalogue: position of the column, and the catalogue.
    pub references: &'static [(usize, usize)],
    /// Position of the column that finds a row: in the table, or below its call if it is a pair.
    pub key: usize,
    /// Whether it is a pair of a call and an entry of a catalogue.
    pub is_pair: bool,
}

/// The column of the rows below a call that refers to it.
pub const PARENT: &str = "convocatoria_id";

/// A catalogue: its table and its key.
pub struct Catalogue {
    /// The table.
    pub table: &'static str,
    /// The columns that identify an entry.
    pub key: &'static [&'static str],
}

const fn catalogue(table: &'static str) -> Catalogue {
    Catalogue { table, key: &["descripcion"] }
}

/// All catalogues.
pub const CATALOGUES: [Catalogue; 10] = [
    catalogue("tipo_convocatoria"),
    catalogue("finalidad"),
    catalogue("reglamento"),
    catalogue("instrumento"),
    catalogue("tipo_beneficiario"),
    Catalogue { table: "sector", key: &["codigo", "descripcion"] },
    catalogue("region"),
    catalogue("fondo"),
    catalogue("objetivo"),
    catalogue("sector_producto"),
];

const fn pair(
    table: &'static str,
    columns: &'static [(&'static str, &'static str)],
    references: &'static [(usize, usize)],
) -> Relation {
    Relation { table, columns, references, key: 0, is_pair: true }
}

/// All tables of calls, the root first.
pub const RELATIONS: [Relation; 10] = [
    Relation {
        table: "convocatoria",
        columns: &[
            ("codigo_bdns", "text"),
            ("id_bdns", "integer"),
            ("organo_nivel1", "text"),
            ("organo_nivel2", "text"),
            ("organo_nivel3", "text"),
            ("sede_electronica", "text"),
            ("fecha_recepcion", "date"),
            ("tipo_convocatoria_id", "bigint"),
            ("presupuesto_total", "numeric(14,2)"),
            ("mrr", "boolean"),
            ("descripcion", "text"),
            ("descripcion_leng", "text"),
            ("finalidad_id", "bigint"),
            ("descripcion_bases_reguladoras", "text"),
            ("url_bases_reguladoras", "text"),
            ("se_publica_diario_oficial", "boolean"),
            ("abierto", "boolean"),
            ("fecha_inicio_solicitud", "date"),
            ("fecha_fin_solicitud", "date"),
            ("text_inicio", "text"),
            ("text_fin", "text"),
            ("ayuda_estado", "text"),
            ("url_ayuda_estado", "text"),
            ("reglamento_id", "bigint"),
            ("reglamento_orden", "integer"),
            ("advertencia", "text"),
        ],
        references: &[(7, 0), (12, 1), (23, 2)],
        key: 0,
        is_pair: false,
    },
    Relation {
        table: "documento",
        columns: &[
            ("id_oficial", "bigint"),
            ("descripcion", "text"),
            ("nombre_fic", "text"),
            ("longitud", "bigint"),
            ("dat_mod", "date"),
            ("dat_publicacion", "date"),
        ],
        references: &[],
        key: 0,
        is_pair: false,
    },
    Relation {
        table: "anuncio",
        columns: &[
            ("num_anuncio", "bigint"),
            ("titulo", "text"),
            ("titulo_leng", "text"),
            ("texto", "text"),
            ("texto_leng", "text"),
            ("url", "text"),
            ("cve", "text"),
            ("des_diario_oficial", "text"),
            ("dat_publicacion", "date"),
        ],
        references: &[],
        key: 0,
        is_pair: false,
    },
    pair("convocatoria_instrumento", &[("instrumento_id", "bigint")], &[(0, 3)]),
    pair("convocatoria_tipo_beneficiario", &[("tipo_beneficiario_id", "bigint")], &[(0, 4)]),
    pair("convocatoria_sector", &[("sector_id", "bigint")], &[(0, 5)]),
    pair("convocatoria_region", &[("region_id", "bigint")], &[(0, 6)]),
    pair("convocatoria_fondo", &[("fondo_id", "bigint")], &[(0, 7)]),
    pair("convocatoria_objetivo", &[("objetivo_id", "bigint")], &[(0, 8)]),
    pair("convocatoria_sector_producto", &[("sector_producto_id", "bigint")], &[(0, 9)]),
];

impl Relation {
    /// The names of the columns that a document fills.
    pub fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }
}

/// Turns the key of a catalogue's entry into what stands for it in a row.
pub trait Refer {
    /// The cell that refers to the entry of a catalogue.
    fn refer<'a>(&mut self, catalogue: usize, key: &[&'a str]) -> Cell<'a>;
}

/// The rows of one call, per relation.
pub type Rows<'a> = [Vec<Vec<Cell<'a>>>; 10];

/// Makes the rows of a call.
pub fn rows<'a>(call: &'a Call<'_>, refer: &mut impl Refer) -> Rows<'a> {
    let mut named = |catalogue: usize, entries: &'a [Named<'_>]| -> Vec<Vec<Cell<'a>>> {
        entries.iter().map(|entry| vec![refer.refer(catalogue, &[&entry.descripcion.0])]).collect()
    };
    let pairs = [
        named(3, &call.instrumentos),
        named(4, &call.tipos_beneficiarios),
        named(6, &call.regiones),
        named(7, &call.fondos),
        named(8, &call.objetivos),
        named(9, &call.sectores_productos),
    ];
    let sectors = call
        .sectores
        .iter()
        .map(|entry| vec![refer.refer(5, &[&entry.codigo.0, &entry.descripcion.0])])
        .collect();
    let [instruments, beneficiaries, regions, funds, objectives, products] = pairs;
    [
        vec![root(call, refer)],
        files(call),
        announcements(call),
        instruments,
        beneficiaries,
        sectors,
        regions,
        funds,
        objectives,
        products,
    ]
}

fn text<'a>(text: &'a Text<'_>) -> Cell<'a> {
    Some(Cow::Borrowed(&text.0))
}

fn maybe<'a>(text: &'a Option<Text<'_>>) -> Cell<'a> {
    text.as_ref().map(|text| Cow::Borrowed(&*text.0))
}

fn shown(value: impl ToString) -> Cell<'static> {
    Some(Cow::Owned(value.to_string()))
}

fn flag(value: bool) -> Cell<'static> {
    Some(Cow::Borrowed(if value { "t" } else { "f" }))
}

fn root<'a>(call: &'a Call<'_>, refer: &mut impl Refer) -> Vec<Cell<'a>> {
    let regulation = call.reglamento.as_ref();
    vec![
        text(&call.codigo),
        shown(call.id),
        text(&call.organo.nivel1),
        text(&call.organo.nivel2),
        maybe(&call.organo.nivel3),
        maybe(&call.sede_electronica),
        text(&call.fecha_recepcion),
        refer.refer(0, &[&call.tipo_convocatoria.0]),
        shown(&call.presupuesto_total),
        flag(call.mrr),
        text(&call.descripcion),
        maybe(&call.descripcion_leng),
        refer.refer(1, &[&call.descripcion_finalidad.0]),
        text(&call.descripcion_bases_reguladoras),
        maybe(&call.url_bases_reguladoras),
        flag(call.se_publica_diario_oficial),
        flag(call.abierto),
        maybe(&call.fecha_inicio_solicitud),
        maybe(&call.fecha_fin_solicitud),
        maybe(&call.text_inicio),
        maybe(&call.text_fin),
        maybe(&call.ayuda_estado),
        maybe(&call.url_ayuda_estado),
        regulation.and_then(|regulation| refer.refer(2, &[&regulation.descripcion.0])),
        regulation.and_then(|regulation| regulation.orden).and_then(shown),
        text(&call.advertencia),
    ]
}

fn files<'a>(call: &'a Call<'_>) -> Vec<Vec<Cell<'a>>> {
    let row = |file: &'a crate::call::File<'_>| {
        vec![
            shown(file.id),
            text(&file.descripcion),
            text(&file.nombre_fic),
            shown(file.long),
            text(&file.dat_mod),
            maybe(&file.dat_publicacion),
        ]
    };
    call.documentos.iter().map(row).collect()
}

fn announcements<'a>(call: &'a Call<'_>) -> Vec<Vec<Cell<'a>>> {
    let row = |announcement: &'a crate::call::Announcement<'_>| {
        vec![
            shown(announcement.num_anuncio),
            text(&announcement.titulo),
            maybe(&announcement.titulo_leng),
            text(&announcement.texto),
            maybe(&announcement.texto_leng),
            maybe(&announcement.url),
            maybe(&announcement.cve),
            text(&announcement.des_diario_oficial),
            maybe(&announcement.dat_publicacion),
        ]
    };
    call.anuncios.iter().map(row).collect()
}
