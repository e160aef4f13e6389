//! Generated grant calls with the mapping of `examples/convocatorias` and its tables' types: what the pure
//! part of a night works on, without a database.

use std::fmt::Write as _;

use rowdelta::json::Json;
use rowdelta::mapping::{Lookup, Mapping, Relation, Source};
use rowdelta::row::RowSet;
use rowdelta::schema::{LookupTable, Marks, PhysicalColumn, Schema, Table, WriteWay};
use rowdelta::shred::{Answers, Questions, Shredded, shred};
use rowdelta::value::{ColumnType, Kind};

/// Everything that shredding needs, and documents of 3 to 4 KB.
pub struct Grants {
    /// The mapping of the example.
    pub mapping: Mapping,
    /// The tables of the example.
    pub schema: Schema,
    /// The ids of all catalogue rows of the documents.
    pub answers: Answers,
    /// The documents, as lines of the feed.
    pub documents: Vec<String>,
}

impl Grants {
    /// Always the same `count` documents.
    pub fn generate(count: usize) -> Self {
        let mapping = include_str!("../../examples/convocatorias/mapping.toml");
        let mapping = Mapping::from_toml(mapping).expect("the example is a mapping");
        let schema = schema(&mapping);
        let mut random = fastrand::Rng::with_seed(2);
        let documents: Vec<String> = (0..count).map(|at| document(at, &mut random)).collect();
        let answers = answers(&mapping, &schema, &documents);
        Grants { mapping, schema, answers, documents }
    }

    /// The bytes of all documents.
    #[allow(dead_code)] // not every benchmark counts them
    pub fn bytes(&self) -> u64 {
        self.documents.iter().map(|document| document.len() as u64).sum()
    }

    /// Parses and shreds one document.
    pub fn rows(&self, document: &str) -> RowSet {
        let json = Json::parse(document.as_bytes()).expect("a document is JSON");
        match shred(&self.mapping, &self.schema, &self.answers, &json).expect("a document fits the mapping") {
            Shredded::Rows(rows) => rows,
            Shredded::Asks(questions) => panic!("not answered: {questions:?}"),
        }
    }
}

/// Gives every catalogue row that the documents refer to an id.
fn answers(mapping: &Mapping, schema: &Schema, documents: &[String]) -> Answers {
    let mut questions = Questions::default();
    let nothing = Answers::default();
    for document in documents {
        let json = Json::parse(document.as_bytes()).expect("a document is JSON");
        if let Ok(Shredded::Asks(asked)) = shred(mapping, schema, &nothing, &json) {
            questions.extend(asked);
        }
    }
    assert!(questions.conversions.is_empty(), "every type of the example is encoded here");
    let mut answers = Answers { lookups: vec![Default::default(); mapping.lookups.len()], ..nothing };
    for (id, (lookup, key)) in questions.lookups.into_keys().enumerate() {
        answers.lookups[lookup].insert(key, Some((id as i64).to_be_bytes().to_vec()));
    }
    answers
}

/// As `postgres::catalog` would read it from the example's tables.
fn schema(mapping: &Mapping) -> Schema {
    let tables = mapping.relations.iter().map(table).collect();
    let lookups = mapping.lookups.iter().map(lookup_table).collect();
    Schema { tables, lookups, digest: [7; 32] }
}

fn table(relation: &Relation) -> Table {
    let columns = relation.columns.iter().map(|column| match column.source {
        Source::Lookup { .. } => ty(Kind::Int8, "bigint"),
        Source::Path { .. } | Source::Position { .. } | Source::Constant { .. } => type_of(&column.name),
    });
    Table {
        name: relation.table.to_string(),
        names: relation.columns.iter().map(|column| column.name.clone()).collect(),
        numbers: (1..).take(relation.columns.len()).collect(),
        columns: columns.collect(),
        key: relation.key_columns(),
        parent: relation.parent.iter().map(|name| physical(name, ty(Kind::Int8, "bigint"))).collect(),
        id: None,
        locator: Vec::new(),
        ignored: Vec::new(),
        own_locator: 0,
        marks: Marks::default(),
        nullable: Vec::new(),
        parent_nullable: false,
        uniques: Vec::new(),
        references: Vec::new(),
        referred: Vec::new(),
        way: WriteWay::Copy,
        triggers: Vec::new(),
        digest: [7; 32],
    }
}

fn lookup_table(lookup: &Lookup) -> LookupTable {
    LookupTable {
        name: lookup.table.to_string(),
        id: physical(&lookup.id, ty(Kind::Int8, "bigint")),
        key: lookup.key.iter().map(|name| physical(name, ty(Kind::Text, "text"))).collect(),
        columns: lookup.columns.iter().map(|(name, _)| physical(name, ty(Kind::Text, "text"))).collect(),
        is_deferrable: false,
    }
}

fn physical(name: &str, ty: ColumnType) -> PhysicalColumn {
    PhysicalColumn { name: name.into(), ty }
}

/// The types of `examples/convocatorias/schema.sql`.
fn type_of(column: &str) -> ColumnType {
    match column {
        "presupuesto_total" => ty(Kind::Numeric(Some((14, 2))), "numeric(14,2)"),
        "id_oficial" | "longitud" | "num_anuncio" => ty(Kind::Int8, "bigint"),
        "id_bdns" | "reglamento_orden" => ty(Kind::Int4, "integer"),
        "mrr" | "se_publica_diario_oficial" | "abierto" => ty(Kind::Bool, "boolean"),
        date if date.starts_with("fecha_") || date.starts_with("dat_") => ty(Kind::Date, "date"),
        _ => ty(Kind::Text, "text"),
    }
}

fn ty(kind: Kind, sql: &str) -> ColumnType {
    // Oids and SQL are for the server, which is not there.
    ColumnType { kind, sql: sql.into(), oid: 0, array_oid: 0, input: String::new(), send: String::new() }
}

const WORDS: [&str; 24] = [
    "subvención",
    "concesión",
    "resolución",
    "ayudas",
    "formación",
    "empleo",
    "año",
    "municipio",
    "cultura",
    "innovación",
    "empresa",
    "desarrollo",
    "rural",
    "de",
    "la",
    "para",
    "las",
    "bases",
    "reguladoras",
    "convocatoria",
    "pública",
    "dirección",
    "general",
    "programa",
];
const REGIONS: [&str; 5] = [
    "ES - ESPAÑA",
    "ES13 - CANTABRIA",
    "ES41 - CASTILLA Y LEON",
    "ES52 - COMUNIDAD VALENCIANA",
    "ES70 - CANARIAS",
];
const SECTORS: [(&str, &str); 5] = [
    ("85.4", "Educación postsecundaria"),
    ("A", "Agricultura, ganadería, silvicultura y pesca"),
    ("S", "Otros servicios"),
    ("R", "Actividades artísticas, recreativas y de entretenimiento"),
    ("J", "Comunicaciones"),
];

/// One call, with the fields and roughly the sizes of the real ones.
fn document(at: usize, random: &mut fastrand::Rng) -> String {
    let (number, day) = (500_000 + at, format!("2024-{:02}-{:02}", random.u8(1..=12), random.u8(1..=28)));
    let mut text = format!(
        r#"{{"id":{},"organo":{{"nivel1":"{}","nivel2":"{}","nivel3":null}},"sedeElectronica":null,"codigoBDNS":"{number}","#,
        700_000 + at,
        words(random, 3),
        words(random, 6),
    );
    let _ = write!(
        text,
        r#""fechaRecepcion":"{day}","tipoConvocatoria":"Concesión directa","presupuestoTotal":{}.{},"mrr":false,"#,
        random.u32(1_000..9_000_000),
        random.u8(0..10),
    );
    let _ = write!(
        text,
        r#""descripcion":"{}","descripcionLeng":null,"descripcionFinalidad":"Educación","#,
        words(random, 40)
    );
    let _ = write!(
        text,
        r#""descripcionBasesReguladoras":"{}","urlBasesReguladoras":"https://example.org/{number}","#,
        words(random, 40),
    );
    let _ = write!(
        text,
        r#""sePublicaDiarioOficial":true,"abierto":{},"fechaInicioSolicitud":"{day}","fechaFinSolicitud":null,"#,
        random.bool(),
    );
    text.push_str(
        r#""textInicio":null,"textFin":null,"ayudaEstado":null,"urlAyudaEstado":null,"reglamento":null,"#,
    );
    let _ = write!(
        text,
        r#""advertencia":"{}","fondos":[],"objetivos":[],"sectoresProductos":[],"#,
        words(random, 60)
    );
    text.push_str(
        r#""instrumentos":[{"descripcion":"SUBVENCIÓN Y ENTREGA DINERARIA SIN CONTRAPRESTACIÓN "}],"#,
    );
    text.push_str(r#""tiposBeneficiarios":[{"descripcion":"PERSONAS JURÍDICAS QUE NO DESARROLLAN ACTIVIDAD ECONÓMICA"}],"#);
    let region = |at: usize| format!(r#"{{"descripcion":"{}"}}"#, REGIONS[at]);
    list(&mut text, "regiones", random.usize(1..3), region);
    let sector = |at: usize| format!(r#"{{"codigo":"{}","descripcion":"{}"}}"#, SECTORS[at].0, SECTORS[at].1);
    list(&mut text, "sectores", random.usize(1..5), sector);
    let file = |item: usize| {
        format!(
            r#"{{"id":{},"descripcion":"{}","nombreFic":"RESOL_{number}_{item}_firmado.pdf","long":{},"datMod":"{day}","datPublicacion":"{day}"}}"#,
            10 * number + item,
            words(random, 5),
            random.u32(10_000..2_000_000),
        )
    };
    let files = 1 + at % 5;
    list(&mut text, "documentos", files, file);
    let announcement = |item: usize| {
        format!(
            r#"{{"numAnuncio":{},"titulo":"{}","tituloLeng":null,"texto":"{}","textoLeng":null,"url":"https://example.org/a/{number}","cve":"BOE-B-{number}","desDiarioOficial":"BOE","datPublicacion":"{day}"}}"#,
            10 * number + item,
            words(random, 20),
            words(random, 60),
        )
    };
    list(&mut text, "anuncios", at % 2, announcement);
    text.pop();
    text.push('}');
    text
}

fn list(text: &mut String, name: &str, count: usize, item: impl FnMut(usize) -> String) {
    let items: Vec<String> = (0..count).map(item).collect();
    let _ = write!(text, r#""{name}":[{}],"#, items.join(","));
}

fn words(random: &mut fastrand::Rng, count: usize) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    words.join(" ")
}
