//! Generated grant calls, with the quirks of real ones: unstable order of lists, catalogue texts that end in a
//! space, no-break spaces and tabs, announcements of kilobytes of HTML, budgets with and without decimals.

use fastrand::Rng;
use serde_json::{Value, json};

/// Calls numbered from 0, the same for the same seed.
#[derive(Clone, Copy)]
pub struct Calls {
    /// How many.
    pub count: u32,
    /// Everything is drawn from it.
    pub seed: u64,
}

/// Which night's dump.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Night {
    /// As they were registered.
    First,
    /// One call in a hundred has changed.
    OneInAHundred,
    /// As the night before, every list in another order.
    Reordered,
}

const INSTRUMENTS: [&str; 3] =
    ["SUBVENCIÓN Y ENTREGA DINERARIA SIN CONTRAPRESTACIÓN ", "PRÉSTAMOS", "VENTAJA FISCAL"];
const BENEFICIARIES: [&str; 4] = [
    "PERSONAS FÍSICAS QUE NO DESARROLLAN ACTIVIDAD ECONÓMICA",
    "PERSONAS JURÍDICAS QUE NO DESARROLLAN ACTIVIDAD ECONÓMICA",
    "PYME Y PERSONAS FÍSICAS QUE DESARROLLAN ACTIVIDAD ECONÓMICA",
    "GRAN EMPRESA",
];
const PURPOSES: [&str; 5] =
    ["Agricultura, Pesca y Alimentación", "Cultura", "Educación", "Sanidad", "Industria y Energía"];
const REGIONS: [&str; 6] = [
    "ES - ESPAÑA ",
    "ES300 - Madrid",
    "ES130 - Cantabria",
    "ES51 - CATALUÑA",
    "ES61 - ANDALUCÍA",
    "ES11 - GALICIA",
];
const SENTENCE: &str = "<p>De conformidad con lo previsto en los artículos 17.3.b y 20.8.a de la Ley 38/2003,\u{a0}de 17 de \
    noviembre,\tGeneral de Subvenciones, se publica el extracto de la convocatoria cuyo texto completo puede \
    consultarse en la Base de Datos Nacional de Subvenciones.</p>\n";

impl Calls {
    /// The dump of a night, one JSON document each.
    pub fn night(self, night: Night) -> impl Iterator<Item = Vec<u8>> + Send {
        (0..self.count).map(move |number| {
            let mut rng = Rng::with_seed(self.seed ^ (u64::from(number) << 20));
            let mut call = call(number, &mut rng);
            if night != Night::First && number % 100 == 7 {
                change(&mut call, number, &mut rng);
            }
            if night == Night::Reordered {
                reorder(&mut call, &mut rng);
            }
            call.to_string().into_bytes()
        })
    }
}

fn call(number: u32, rng: &mut Rng) -> Value {
    let code = format!("{:06}", 327_000 + number);
    let day = format!("2024-{:02}-{:02}", rng.u32(1..=12), rng.u32(1..=28));
    let cents = rng.u64(0..200_000_000);
    let budget = if rng.bool() { json!(cents / 100) } else { json!(cents as f64 / 100.0) };
    let documents: Vec<Value> =
        (0..rng.u32(1..=4)).map(|place| document(number * 8 + place, &day, rng)).collect();
    let announcements: Vec<Value> =
        (0..rng.u32(0..=2)).map(|place| announcement(number * 4 + place, &day, rng)).collect();
    json!({
        "id": 500_000 + number,
        "organo": { "nivel1": "AUTONOMICA", "nivel2": REGIONS[rng.usize(1..6)], "nivel3": null },
        "sedeElectronica": null,
        "codigoBDNS": code,
        "fechaRecepcion": day,
        "instrumentos": some(&INSTRUMENTS, rng),
        "tipoConvocatoria": "Concurrencia competitiva - canónica",
        "presupuestoTotal": budget,
        "mrr": rng.u32(0..10) == 0,
        "descripcion": format!("ORDEN POR LA QUE SE CONVOCAN AYUDAS PARA EL EJERCICIO 2024, LÍNEA\u{a0}{number}"),
        "descripcionLeng": null,
        "tiposBeneficiarios": some(&BENEFICIARIES, rng),
        "sectores": sectors(rng),
        "regiones": some(&REGIONS, rng),
        "descripcionFinalidad": PURPOSES[rng.usize(0..PURPOSES.len())],
        "descripcionBasesReguladoras": "ORDEN MED/9/2016, DE 24 DE FEBRERO  (BOC Nº 47)",
        "urlBasesReguladoras": format!("http://boc.example/verAnuncio?id={}", rng.u32(..)),
        "sePublicaDiarioOficial": true,
        "abierto": false,
        "fechaInicioSolicitud": if rng.bool() { json!(day) } else { Value::Null },
        "fechaFinSolicitud": if rng.u32(0..200) == 0 { json!("5015-09-22") } else { Value::Null },
        "textInicio": "DIA SIGUIENTE PUBLICACIÓN DEL EXTRACTO ",
        "textFin": "30 DIAS HABILES",
        "ayudaEstado": null,
        "urlAyudaEstado": null,
        "fondos": [],
        "reglamento": null,
        "objetivos": [],
        "sectoresProductos": [],
        "documentos": documents,
        "anuncios": announcements,
        "advertencia": "La información tiene carácter meramente informativo.",
    })
}

fn document(id: u32, day: &str, rng: &mut Rng) -> Value {
    json!({
        "id": id,
        "descripcion": "Texto en castellano de la convocatoria",
        "nombreFic": format!("Orden de {day} convocatoria {id}.pdf"),
        "long": rng.u32(10_000..3_000_000),
        "datMod": day,
        "datPublicacion": day,
    })
}

fn announcement(number: u32, day: &str, rng: &mut Rng) -> Value {
    json!({
        "numAnuncio": number,
        "titulo": format!("EXTRACTO DE LA ORDEN {number}"),
        "tituloLeng": null,
        "texto": SENTENCE.repeat(rng.usize(1..12)),
        "textoLeng": null,
        "url": null,
        "cve": format!("BOE-B-2024-{number}"),
        "desDiarioOficial": "BOLETÍN OFICIAL DEL ESTADO",
        "datPublicacion": day,
    })
}

/// One or more entries of a catalogue, none twice.
fn some(catalogue: &[&str], rng: &mut Rng) -> Value {
    let count = if rng.u32(0..4) == 0 { 2 } else { 1 };
    let chosen = rng.choose_multiple(catalogue.iter(), count);
    chosen.into_iter().map(|text| json!({ "descripcion": text })).collect()
}

fn sectors(rng: &mut Rng) -> Value {
    let count = rng.usize(1..6);
    let sector = |code: u32| json!({ "codigo": format!("{code:02}"), "descripcion": format!("Sector de actividad {code}") });
    rng.choose_multiple(1..90, count).into_iter().map(sector).collect()
}

/// What publishers do to a call: an annulment, another budget, a document more, one renamed, one less.
fn change(call: &mut Value, number: u32, rng: &mut Rng) {
    match number / 100 % 5 {
        0 => {
            call["descripcion"] =
                json!(format!("ANULADA. {}", call["descripcion"].as_str().unwrap_or_default()))
        }
        1 => call["presupuestoTotal"] = json!(rng.u32(1_000..9_000_000)),
        2 => list(call, "documentos").push(document(number * 8 + 7, "2024-12-30", rng)),
        3 => call["documentos"][0]["nombreFic"] = json!("Corrección de errores.pdf"),
        _ => drop(list(call, "documentos").pop()),
    }
}

fn reorder(call: &mut Value, rng: &mut Rng) {
    for name in ["documentos", "anuncios", "sectores", "regiones", "instrumentos", "tiposBeneficiarios"] {
        rng.shuffle(list(call, name));
    }
}

fn list<'c>(call: &'c mut Value, name: &str) -> &'c mut Vec<Value> {
    call[name].as_array_mut().expect("every call has all its lists")
}
