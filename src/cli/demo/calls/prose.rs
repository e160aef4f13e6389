//! Names, titles, dates and HTML of generated calls, with the slips of real ones.

use fastrand::Rng;
use serde_json::{Value, json};

use super::once_in;

/// What a document of a call is.
pub const DOCUMENTS: &[&str] = &[
    "Texto en castellano de la convocatoria",
    "Texto de la convocatoria en otras lenguas ",
    "Documento de la convocatoria en español",
    "Resolución\tde concesión",
    "Corrección de errores",
    "ResoluciÃ³n definitiva",
];

/// The legal notice under every call.
pub const NOTICE: &str = "La información que se ofrece tiene carácter meramente informativo. Origen de los datos: el \
    órgano que convoca. Para conocer las condiciones de la convocatoria ha de acudirse al texto que publica el diario \
    oficial, único que tiene validez; los plazos que aquí figuran pueden haber sido modificados por resoluciones posteriores.";

const AUTHORITIES: [&str; 8] = [
    "CONSEJERÍA DE AGRICULTURA, GANADERÍA Y DESARROLLO RURAL",
    "CONSEJERÍA DE EMPLEO Y POLÍTICAS SOCIALES",
    "CONSEJERÍA DE EDUCACIÓN,\u{a0}CULTURA Y DEPORTE",
    "DIRECCIÓN GENERAL DE INDUSTRIA, COMERCIO  Y CONSUMO",
    "INSTITUTO DE LA MUJER\nY PARA LA IGUALDAD",
    "AGENCIA ESTATAL DE INVESTIGACIÓN",
    "SERVICIO PÚBLICO DE EMPLEO",
    "FUNDACIÓN PARA LA INNOVACIÓN ¿CIENCIA Y EMPRESA¿",
];
const AIDS: [&str; 10] = [
    "a la contratación indefinida de personas desempleadas",
    "a entidades sin ánimo de lucro para proyectos de inclusión social",
    "para la modernización de explotaciones agrarias",
    "a la movilidad de personal investigador",
    "para la rehabilitación energética de edificios",
    "a asociaciones culturales para la organización de festivales",
    "a municipios de menos de 5.000 habitantes",
    "para la digitalización del comercio minorista",
    "al deporte de base y a clubes federados",
    "para cursos de formación con compromiso de contratación",
];
const SENTENCES: [&str; 8] = [
    "De conformidad con lo previsto en los artículos 17.3.b y 20.8.a de la Ley 38/2003,\u{a0}de 17 de noviembre, General de Subvenciones, se publica el extracto de la convocatoria, cuyo texto completo puede consultarse en la Base de Datos Nacional de Subvenciones.",
    "Podrán ser beneficiarias las personas físicas y jurídicas que cumplan los requisitos que establecen las bases reguladoras y que no estén incursas en ninguna de las prohibiciones del artículo 13 de dicha Ley.",
    "La cuantía máxima de la ayuda será del 80&nbsp;% del presupuesto subvencionable, con el límite de 30.000 euros por beneficiario.",
    "Las solicitudes se presentarán en el modelo normalizado,\tque estará disponible en la sede electrónica, junto con la memoria y el presupuesto de la actividad.",
    "El plazo de presentación de solicitudes será de veinte días hábiles a contar desde el siguiente al de la publicación de este extracto.",
    "La concesión se hará en régimen de concurrencia competitiva, y las solicitudes se ordenarán por la puntuación que obtengan según los criterios del anexo II.",
    "El pago se efectuará en dos plazos: el primero, del 75 %, tras la resolución; el segundo, previa justificación del gasto.",
    "Contra esta resolución, que pone fin a la vía administrativa, cabe recurso potestativo de reposición en el plazo de un mes.",
];
const MONTHS: [&str; 6] = ["enero", "marzo", "abril", "junio", "septiembre", "noviembre"];

/// A day of the year of the calls.
pub fn day(rng: &mut Rng) -> String {
    format!("2024-{:02}-{:02}", rng.u8(1..=12), rng.u8(1..=28))
}

/// The last day to apply; the year is a slip now and then.
pub fn last_day(rng: &mut Rng) -> String {
    let year = match rng.u32(..1000) {
        0..=2 => *["5015", "3016", "2204", "2203"].get(rng.usize(..4)).unwrap_or(&"5015"),
        3..=9 => "2036",
        _ => "2025",
    };
    format!("{year}-{:02}-{:02}", rng.u8(1..=12), rng.u8(1..=28))
}

/// When to apply, in words.
pub fn window(rng: &mut Rng) -> String {
    let start = [
        "DIA SIGUIENTE PUBLICACIÓN DEL EXTRACTO ",
        "Al día siguiente de su publicación",
        " Desde el 1 de mayo",
    ];
    (*rng.choice(&start).unwrap_or(&start[0])).to_owned()
}

/// The granting body by its three levels.
pub fn body(rng: &mut Rng) -> Value {
    let level = ["AUTONOMICA", "ESTADO", "OTROS"][rng.usize(..3)];
    let region = super::catalogues::REGIONS[rng.usize(1..80)];
    let name = region.split(" - ").nth(1).unwrap_or(region).to_uppercase();
    json!({
        "nivel1": level,
        "nivel2": name,
        "nivel3": (!once_in(rng, 3)).then(|| AUTHORITIES[rng.usize(..AUTHORITIES.len())]),
    })
}

/// Meant to be a link.
pub fn url(number: u32, rng: &mut Rng) -> String {
    match rng.u32(..20) {
        0 => "NON TEN".into(),
        1 => "www.boletin.example".into(),
        2 => format!("https:\\\\sede.example\\tramites\\{number}"),
        3 => "subvenciones@ayuntamiento.example".into(),
        _ => format!(
            "https://sede.example/boletin/verAnuncio.do?idAnuBlob={}&vista=completa",
            rng.u32(300_000..500_000)
        ),
    }
}

/// The title of a call: no two calls have the same.
pub fn title(number: u32, rng: &mut Rng) -> String {
    let act = ["ORDEN", "RESOLUCIÓN", "Acuerdo", "Extracto de la Orden"][rng.usize(..4)];
    let gap = if once_in(rng, 5) { "  " } else { " " };
    let month = MONTHS[rng.usize(..MONTHS.len())];
    let mut text = format!(
        "{act} {number}/2024,{gap}de {} de {month}, de la {}, por la que se convocan ayudas {}",
        rng.u8(1..=28),
        AUTHORITIES[rng.usize(..AUTHORITIES.len())],
        AIDS[rng.usize(..AIDS.len())],
    );
    if once_in(rng, 100) {
        text.push_str("\npara el ejercicio 2024");
    }
    text
}

/// The title of the rules.
pub fn rules(rng: &mut Rng) -> String {
    let aid = AIDS[rng.usize(..AIDS.len())];
    format!(
        "ORDEN {}/2016, DE 24 DE FEBRERO, por la que se establecen las bases reguladoras de las ayudas {aid} (BOC Nº {})",
        rng.u8(1..60),
        rng.u8(1..250)
    )
}

/// Paragraphs of about so many bytes.
pub fn html(bytes: usize, rng: &mut Rng) -> String {
    let mut text = String::with_capacity(bytes + 300);
    while text.len() < bytes {
        let sentence = SENTENCES[rng.usize(..SENTENCES.len())];
        match rng.u32(..10) {
            0 => text.push_str("<p style=\"text-align:justify\">"),
            _ => text.push_str("<p>"),
        }
        text.push_str(sentence);
        text.push_str("</p>\n");
    }
    text
}
