//! Generated grant calls (*convocatorias*): seeded, with the shape, sizes and quirks of real ones.
//!
//! The numbers behind the draws were read off 8,776 real calls of the Spanish national grants database: most have one
//! or two documents, a few fifty-five; one in three has an announcement, of up to 80 KB of HTML; texts hold no-break
//! spaces, tabs, line feeds, double spaces and backslashes, catalogue texts end in a space, years have slips, budgets
//! have cents or pass 2³¹, lists come in another order on another night, and a dump repeats calls.
//!
//! A [`Night`] is the dump of a night: the calls of the first night, and what has happened to them since.

// With their paths: the nightly benchmark takes this file in as a module of its own.
#[path = "calls/catalogues.rs"]
mod catalogues;
#[path = "calls/prose.rs"]
mod prose;

use fastrand::Rng;
use serde_json::{Value, json};

/// All rates are per so many.
pub const RATE: u32 = 10_000;

/// Grant calls, the same for the same count and seed.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// How many the first night has.
    pub count: u32,
    /// Everything is drawn from it.
    pub seed: u64,
}

/// What sets a night's dump apart from the first one's. Rates are per [`RATE`] calls; a call that is changed at a
/// rate is so at every higher one, in the same way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Night {
    /// Calls that were changed as their publishers do: dates, budget, an annulment, documents, announcements, sectors.
    pub changed: u32,
    /// Calls whose lists come in another order.
    pub reordered: u32,
    /// Calls that were withdrawn.
    pub removed: u32,
    /// New calls.
    pub added: u32,
    /// Calls that stand twice in the dump, as pages that overlap make them.
    pub repeated: u32,
    /// Calls that have come to have a field that nobody maps.
    pub unmapped: u32,
    /// Calls whose members, at every depth, are spelled in another order.
    pub shuffled: u32,
}

/// The lists of a call.
const LISTS: [&str; 9] = [
    "documentos",
    "anuncios",
    "instrumentos",
    "tiposBeneficiarios",
    "sectores",
    "regiones",
    "fondos",
    "objetivos",
    "sectoresProductos",
];

/// What is drawn for a call by itself, so that one rate doesn't shift another's draws.
#[derive(Clone, Copy)]
enum Draw {
    Content,
    Changed,
    Reordered,
    Removed,
    Repeated,
    Unmapped,
    Shuffled,
}

impl Calls {
    /// The dump of a night: one JSON document each, in the order of their numbers.
    pub fn night(self, night: Night) -> impl Iterator<Item = Vec<u8>> + Send {
        let added = u64::from(self.count) * u64::from(night.added) / u64::from(RATE);
        (0..self.count + added as u32).flat_map(move |number| self.documents(number, night))
    }

    /// A call as it stands in the dump: not at all, once, or twice.
    fn documents(self, number: u32, night: Night) -> impl Iterator<Item = Vec<u8>> {
        let is = |draw, rate| self.rng(number, draw).u32(..RATE) < rate;
        let copies = match (is(Draw::Removed, night.removed), is(Draw::Repeated, night.repeated)) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        let document = (copies > 0).then(|| {
            let mut call = call(number, &mut self.rng(number, Draw::Content));
            if is(Draw::Changed, night.changed) {
                change(&mut call, number, &mut self.rng(number ^ 1 << 31, Draw::Changed));
            }
            if is(Draw::Reordered, night.reordered) {
                reorder(&mut call, &mut self.rng(number ^ 1 << 31, Draw::Reordered));
            }
            if is(Draw::Unmapped, night.unmapped) {
                call["visitas"] = json!(self.rng(number ^ 1 << 31, Draw::Unmapped).u32(..100_000));
            }
            if is(Draw::Shuffled, night.shuffled) {
                return shuffled(&call, &mut self.rng(number ^ 1 << 31, Draw::Shuffled)).into_bytes();
            }
            call.to_string().into_bytes()
        });
        document.into_iter().cycle().take(copies)
    }

    fn rng(self, number: u32, draw: Draw) -> Rng {
        // Seeds that are near give first draws that are near: so the seed itself is drawn.
        let mut rng = Rng::with_seed(self.seed ^ u64::from(number) << 8 ^ draw as u64);
        Rng::with_seed(rng.u64(..).rotate_left(32) ^ rng.u64(..))
    }
}

/// A count drawn from ranges with their shares, in percent.
fn count(rng: &mut Rng, ranges: &[(u32, std::ops::RangeInclusive<usize>)]) -> usize {
    let mut percent = rng.u32(..100);
    for (share, range) in ranges {
        match percent.checked_sub(*share) {
            Some(rest) => percent = rest,
            None => return rng.usize(range.clone()),
        }
    }
    0
}

/// True once in `times`.
fn once_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

fn call(number: u32, rng: &mut Rng) -> Value {
    let day = prose::day(rng);
    let documents: Vec<Value> =
        (0..count(rng, &[(53, 1..=1), (32, 2..=2), (13, 3..=7), (1, 8..=14), (1, 15..=55)]))
            .map(|place| document(number, place, &day, rng))
            .collect();
    let announcements: Vec<Value> = (0..count(rng, &[(65, 0..=0), (32, 1..=1), (2, 2..=2), (1, 3..=10)]))
        .map(|place| announcement(number, place, &day, rng))
        .collect();
    let state_aid = once_in(rng, 30);
    json!({
        "id": 500_000 + number,
        "organo": prose::body(rng),
        "sedeElectronica": once_in(rng, 3).then(|| prose::url(number, rng)),
        "codigoBDNS": format!("{:06}", 327_000 + number),
        "fechaRecepcion": day,
        "instrumentos": named(catalogues::INSTRUMENTS, count(rng, &[(99, 1..=1), (1, 2..=6)]), rng),
        "tipoConvocatoria": catalogues::KINDS[count(rng, &[(45, 0..=0), (50, 1..=1), (5, 2..=2)])],
        "presupuestoTotal": budget(rng),
        "mrr": once_in(rng, 15),
        "descripcion": prose::title(number, rng),
        "descripcionLeng": once_in(rng, 8).then(|| prose::title(number, rng)),
        "tiposBeneficiarios": named(catalogues::BENEFICIARIES, count(rng, &[(92, 1..=1), (8, 2..=4)]), rng),
        "sectores": sectors(count(rng, &[(76, 1..=1), (14, 2..=2), (7, 3..=12), (2, 13..=40), (1, 41..=272)]), rng),
        "regiones": named(catalogues::REGIONS, count(rng, &[(97, 1..=1), (2, 2..=4), (1, 5..=19)]), rng),
        "descripcionFinalidad": rng.choice(catalogues::PURPOSES),
        "descripcionBasesReguladoras": prose::rules(rng),
        "urlBasesReguladoras": prose::url(number, rng),
        "sePublicaDiarioOficial": rng.bool(),
        "abierto": once_in(rng, 10),
        "fechaInicioSolicitud": (!once_in(rng, 3)).then_some(&day),
        "fechaFinSolicitud": (!once_in(rng, 3)).then(|| prose::last_day(rng)),
        "textInicio": rng.bool().then(|| prose::window(rng)),
        "textFin": rng.bool().then_some("30 DIAS HABILES"),
        "ayudaEstado": state_aid.then(|| format!("SA.{}", 40_000 + number % 60_000)),
        "urlAyudaEstado": state_aid.then(|| prose::url(number, rng)),
        "fondos": named(catalogues::FUNDS, count(rng, &[(84, 0..=0), (15, 1..=1), (1, 2..=2)]), rng),
        "reglamento": once_in(rng, 6).then(|| json!({ "descripcion": rng.choice(catalogues::REGULATIONS), "orden": null })),
        "objetivos": named(catalogues::OBJECTIVES, count(rng, &[(97, 0..=0), (2, 1..=1), (1, 2..=11)]), rng),
        "sectoresProductos": named(catalogues::PRODUCTS, usize::from(once_in(rng, 280)), rng),
        "documentos": documents,
        "anuncios": announcements,
        "advertencia": prose::NOTICE,
    })
}

/// Mostly small, one in six with cents, some nought, a few of thousands of millions.
fn budget(rng: &mut Rng) -> Value {
    match rng.u32(..1000) {
        0..=35 => json!(0),
        36..=37 => json!(rng.u64(2_200_000_000..95_500_000_000)),
        // Divided as text: a double has no cents.
        38..=200 => {
            let text = format!("{}.{}{}", rng.u32(500..5_000_000), rng.u8(..10), rng.u8(1..10));
            serde_json::from_str(&text).expect("digits and a point are a number")
        }
        201..=800 => json!(rng.u32(1..500) * 1_000),
        _ => json!(rng.u32(1..2_000) * 50_000),
    }
}

/// Entries of a catalogue, none twice. The first one is drawn most often, as in life.
fn named(catalogue: &[&str], count: usize, rng: &mut Rng) -> Value {
    let mut entries = rng.choose_multiple(catalogue.iter(), count.min(catalogue.len()));
    if count == 1 && rng.u32(..3) > 0 {
        entries = vec![&catalogue[0]];
    }
    entries.into_iter().map(|text| json!({ "descripcion": text })).collect()
}

fn sectors(count: usize, rng: &mut Rng) -> Value {
    let entries = rng.choose_multiple(0..catalogues::SECTORS, count);
    let entry = |at| {
        let (code, text) = catalogues::sector(at);
        json!({ "descripcion": text, "codigo": code })
    };
    entries.into_iter().map(entry).collect()
}

fn document(number: u32, place: usize, day: &str, rng: &mut Rng) -> Value {
    let id = u64::from(number) * 64 + place as u64;
    // One file in thirty has the name of another one of the call.
    let file = if once_in(rng, 30) {
        "Convocatoria.pdf".to_owned()
    } else {
        format!("{day} Orden {id}_firmado.pdf")
    };
    let published = match rng.u32(..6) {
        0 => Value::Null,
        1 => json!(prose::day(rng)),
        _ => json!(day),
    };
    json!({
        "id": id,
        "descripcion": rng.choice(prose::DOCUMENTS),
        "nombreFic": file,
        "long": rng.u32(10_000..3_000_000),
        "datMod": day,
        "datPublicacion": published,
    })
}

fn announcement(number: u32, place: usize, day: &str, rng: &mut Rng) -> Value {
    let id = u64::from(number) * 16 + place as u64;
    let size = count(
        rng,
        &[
            (10, 20..=200),
            (40, 1_500..=2_500),
            (40, 2_500..=5_600),
            (9, 5_600..=15_000),
            (1, 15_000..=80_000),
        ],
    );
    let other = once_in(rng, 5);
    json!({
        "numAnuncio": id,
        "titulo": prose::title(number, rng),
        "tituloLeng": other.then(|| prose::title(number, rng)),
        "texto": prose::html(size, rng),
        "textoLeng": other.then(|| prose::html(size, rng)),
        "url": prose::url(number, rng),
        "cve": (!once_in(rng, 3)).then(|| format!("BOE-B-2024-{id}")),
        "desDiarioOficial": rng.choice(catalogues::GAZETTES),
        "datPublicacion": day,
    })
}

/// What publishers do to a call.
fn change(call: &mut Value, number: u32, rng: &mut Rng) {
    let day = "2024-12-30";
    match rng.u32(..8) {
        0 => {
            call["descripcion"] =
                json!(format!("ANULADA. {}", call["descripcion"].as_str().unwrap_or_default()))
        }
        1 => call["presupuestoTotal"] = json!(rng.u32(1_000..9_000_000)),
        2 => call["fechaFinSolicitud"] = json!("2025-01-31"),
        3 => list(call, "documentos").push(document(number, 63, day, rng)),
        4 => call["documentos"][0]["nombreFic"] = json!("Corrección de errores.pdf"),
        5 if list(call, "documentos").len() > 1 => drop(list(call, "documentos").pop()),
        6 => list(call, "anuncios").push(announcement(number, 15, day, rng)),
        _ => call["sectores"] = sectors(2, rng),
    }
}

fn reorder(call: &mut Value, rng: &mut Rng) {
    for name in LISTS {
        rng.shuffle(list(call, name));
    }
}

/// The text of a value with the members of its objects in any order.
fn shuffled(value: &Value, rng: &mut Rng) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", json!(name), shuffled(value, rng)))
                .collect();
            rng.shuffle(&mut members);
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shuffled(item, rng)).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn list<'c>(call: &'c mut Value, name: &str) -> &'c mut Vec<Value> {
    call[name].as_array_mut().expect("every call has all its lists")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const CALLS: Calls = Calls { count: 2_000, seed: 1 };

    fn parsed(night: Night) -> Vec<Value> {
        CALLS.night(night).map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect()
    }

    #[test]
    fn a_night_is_the_same_whenever_it_is_drawn() {
        assert!(CALLS.night(Night::default()).eq(CALLS.night(Night::default())));
        let other = Calls { seed: 2, ..CALLS };
        assert!(CALLS.night(Night::default()).zip(other.night(Night::default())).all(|(a, b)| a != b));
    }

    #[test]
    fn a_rate_changes_about_so_many_calls_and_no_others() {
        let (before, after) =
            (parsed(Night::default()), parsed(Night { changed: 1_000, ..Night::default() }));
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!((150..250).contains(&changed), "{changed}");
        let more = parsed(Night { changed: 2_000, ..Night::default() });
        assert!(before.iter().zip(&after).zip(&more).all(|((a, b), c)| a == b || b == c));
    }

    #[test]
    fn reordered_lists_hold_the_same_items() {
        let reordered = parsed(Night { reordered: RATE, ..Night::default() });
        let mut differ = 0;
        for (mut before, mut after) in parsed(Night::default()).into_iter().zip(reordered) {
            differ += u32::from(before != after);
            for name in LISTS {
                let sort = |list: &mut Vec<Value>| list.sort_by_key(Value::to_string);
                sort(list(&mut before, name));
                sort(list(&mut after, name));
            }
            assert_eq!(before, after);
        }
        assert!(differ > 500, "{differ}");
    }

    #[test]
    fn shuffled_members_say_the_same() {
        let night = Night { shuffled: RATE, ..Night::default() };
        assert_eq!(parsed(night), parsed(Night::default()));
        assert!(CALLS.night(night).zip(CALLS.night(Night::default())).all(|(a, b)| a != b));
    }

    #[test]
    fn a_field_that_nobody_maps_comes_alone() {
        let mut calls = parsed(Night { unmapped: RATE, ..Night::default() });
        let added = calls.iter_mut().filter_map(|call| call.as_object_mut()?.remove("visitas"));
        assert_eq!(added.count(), 2_000);
        assert_eq!(calls, parsed(Night::default()));
    }

    #[test]
    fn calls_come_go_and_are_repeated() {
        let codes = |night| -> Vec<String> {
            parsed(night).iter().map(|call| call["codigoBDNS"].to_string()).collect()
        };
        let first: HashSet<String> = codes(Night::default()).into_iter().collect();
        assert_eq!(first.len(), 2_000);
        let added = codes(Night { added: 50, ..Night::default() });
        assert_eq!(added.iter().filter(|code| !first.contains(*code)).count(), 10);
        assert!((1_900..2_000).contains(&codes(Night { removed: 200, ..Night::default() }).len()));
        let repeated = codes(Night { repeated: 200, ..Night::default() });
        assert!(repeated.len() > 2_000 && repeated.iter().collect::<HashSet<_>>().len() == 2_000);
    }

    #[test]
    fn ids_are_unique_over_all_calls() {
        let calls = parsed(Night { changed: RATE, ..Night::default() });
        for (name, key) in [("documentos", "id"), ("anuncios", "numAnuncio")] {
            let ids: Vec<u64> = calls
                .iter()
                .flat_map(|call| call[name].as_array().unwrap())
                .map(|item| item[key].as_u64().unwrap())
                .collect();
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{name}");
        }
    }

    #[test]
    fn every_quirk_is_drawn() {
        let text: String =
            CALLS.night(Night::default()).map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        let quirks = [
            "\u{a0}",
            "\\t",
            "\\n",
            "  ",
            "\\\\",
            "ESPAÑA \"",
            "NON TEN",
            "5015-",
            "Ã³",
            "<p>",
            "&nbsp;",
            ".0",
        ];
        for quirk in quirks {
            assert!(text.contains(quirk), "{quirk:?}");
        }
        let calls = parsed(Night::default());
        let longest =
            |name: &str| calls.iter().map(|call| call[name].as_array().unwrap().len()).max().unwrap();
        assert!(longest("documentos") > 14 && longest("sectores") > 40);
        assert!(calls.iter().any(|call| call["presupuestoTotal"].as_f64().unwrap() > 2f64.powi(31)));
        let sizes = calls.iter().flat_map(|call| call["anuncios"].as_array().unwrap());
        assert!(sizes.map(|item| item["texto"].as_str().unwrap().len()).max().unwrap() > 15_000);
    }
}
