//! What runs say of themselves while they are at work: metrics, spans, logs.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use bb8_postgres::PostgresConnectionManager;
use futures_util::stream;
use metrics_exporter_prometheus::PrometheusBuilder;
use rowdelta::{Document, Engine, Mapping, Report, SyncError};
use serde_json::{Value, json};
use tokio_postgres::NoTls;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::shop::{MAPPING, Shop, ndjson};
use crate::support::command::binary;

/// Syncs documents by the library, under a mapping of this name.
async fn sync(shop: &Shop, name: &str, feed: &[Value]) -> Result<Report, SyncError> {
    let manager = PostgresConnectionManager::new_from_stringlike(shop.db.url(), NoTls).unwrap();
    let pool = bb8::Pool::builder().build(manager).await.unwrap();
    let mapping = MAPPING.replace("name = \"shop\"", &format!("name = {name:?}"));
    let engine = Engine::builder(Mapping::from_toml(&mapping).unwrap()).build(pool).await?;
    engine.sync(stream::iter(feed.iter().map(|doc| Ok(Document::from(doc.to_string().as_str()))))).await
}

fn order(number: &str, quantity: u64) -> Value {
    json!({ "number": number, "lines": [{ "no": 1, "qty": quantity }], "products": ["p"] })
}

/// Series of Prometheus' text format, and their values.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn a_recorder_gets_what_the_report_says() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let shop = Shop::open().await;
            let feed = [order("A", 1), order("B", 1), json!({ "number": "BAD", "units": "many" })];
            let Err(SyncError::Failed(first)) = sync(&shop, "shop", &feed).await else { panic!("one fails") };
            (*first, sync(&shop, "shop", &[order("A", 1), order("B", 2), order("A", 1)]).await.unwrap())
        })
    });
    let found = series(&recorder.handle().render());
    let value = |series: &str| *found.get(series).unwrap_or_else(|| panic!("{series} in {found:#?}"));
    let of_shop = |name: &str, label: &str| value(&format!("rowdelta_{name}{{mapping=\"shop\"{label}}}"));
    let documents = |outcome: &str| of_shop("documents_total", &format!(",outcome=\"{outcome}\""));
    let outcomes =
        ["new", "changed", "unchanged", "repeated", "failed", "withheld", "removed"].map(documents);
    assert_eq!(outcomes, [2.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    assert_eq!(of_shop("runs_total", ",status=\"failed\""), 1.0);
    assert_eq!(of_shop("runs_total", ",status=\"done\""), 1.0);
    let rows = |relation: &str, action: &str| {
        of_shop("rows_total", &format!(",relation=\"{relation}\",action=\"{action}\""))
    };
    assert_eq!([rows("shop", "added"), rows("lines", "added"), rows("lines", "updated")], [2.0, 2.0, 1.0]);
    assert_eq!(rows("product", "added"), 1.0, "catalogues are relations too");
    assert_eq!(of_shop("bytes_read_total", ""), (first.bytes_read + second.bytes_read) as f64);
    assert!(of_shop("transactions_total", ",outcome=\"committed\"") >= 2.0);
    let batches = of_shop("batch_seconds_count", ",outcome=\"committed\"");
    assert_eq!(batches, of_shop("transactions_total", ",outcome=\"committed\""));
    assert_eq!([of_shop("retries_total", ""), of_shop("lease_lost_total", "")], [0.0, 0.0]);
    assert_eq!(of_shop("lease_wait_seconds_count", ""), 2.0);
    assert_eq!(of_shop("documents_unsettled", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_metrics_goes_on_from_night_to_night_and_is_written_on_failures_too() {
    let shop = Shop::open().await;
    let file = shop.scratch.path("rowdelta.prom");
    let metrics = ["--metrics", file.to_str().unwrap()];
    let read = || series(&std::fs::read_to_string(&file).unwrap());
    shop.run_with(&[order("A", 1), order("B", 1)], &metrics).await.succeeded();
    let first = read();
    let new = "rowdelta_documents_total{mapping=\"shop\",outcome=\"new\"}";
    let unchanged = "rowdelta_documents_total{mapping=\"shop\",outcome=\"unchanged\"}";
    assert_eq!((first[new], first[unchanged]), (2.0, 0.0), "{first:#?}");
    shop.run_with(&[order("A", 1), order("B", 1), order("C", 1)], &metrics).await.succeeded();
    let second = read();
    assert_eq!((second[new], second[unchanged]), (3.0, 2.0), "{second:#?}");
    assert_eq!(second["rowdelta_run_seconds_count{mapping=\"shop\",status=\"done\"}"], 2.0, "{second:#?}");
    let gauge = |found: &BTreeMap<String, f64>, name: &str| {
        found[&format!("rowdelta_last_{name}{{mapping=\"shop\"}}")]
    };
    assert_eq!(gauge(&second, "run_exit_code"), 0.0);
    assert_eq!(gauge(&second, "run_timestamp_seconds"), gauge(&second, "success_timestamp_seconds"));

    let mapping = shop.scratch.write("m.toml", MAPPING);
    let feed = shop.scratch.write("feed.ndjson", ndjson(&[order("A", 1)]));
    let refused = |url: &str, mapping: &Path| {
        let mut command = binary();
        command.args(["sync", "-d", url, "-m"]).arg(mapping).args(metrics).arg(&feed);
        command.output().unwrap().status.code()
    };
    assert_eq!(refused("postgres://nobody@127.0.0.1:1/nowhere", &mapping), Some(2));
    let third = read();
    assert_eq!((third[new], gauge(&third, "run_exit_code")), (3.0, 2.0), "{third:#?}");
    let success = gauge(&third, "success_timestamp_seconds");
    assert!(
        success == gauge(&second, "success_timestamp_seconds")
            && gauge(&third, "run_timestamp_seconds") >= success
    );
    assert_eq!(third["rowdelta_last_run_status{mapping=\"shop\",status=\"unable\"}"], 1.0);
    assert_eq!(third["rowdelta_last_run_status{mapping=\"shop\",status=\"done\"}"], 0.0);

    let ran = shop.run_with(&[json!({ "number": "BAD", "units": "many" })], &metrics).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(read()["rowdelta_documents_total{mapping=\"shop\",outcome=\"failed\"}"], 1.0);
    let (text, page) = (std::fs::read_to_string(&file).unwrap(), page());
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 15 && names.is_sorted(), "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}")), "{name} is not documented");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
    let left = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains(".tmp")));
    let nowhere = shop.scratch.path("nowhere/rowdelta.prom");
    let ran = shop.run_with(&[order("D", 1)], &["--metrics", nowhere.to_str().unwrap()]).await;
    assert_eq!((ran.code, ran.stderr.contains("/nowhere; make it")), (2, true), "{}", ran.stderr);
    assert_eq!(shop.rows("SELECT count(*) FROM orders").await, ["3"], "said before anything is written");
}

/// The fields of a span or of an event, as text.
type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug)]
struct Seen {
    name: &'static str,
    /// Names of the spans around it, from the run inwards.
    within: Vec<&'static str>,
    fields: Fields,
}

/// Keeps the spans of runs, and their events that matter, per mapping.
struct Collector;

static SPANS: OnceLock<Mutex<HashMap<u64, Seen>>> = OnceLock::new();
static EVENTS: Mutex<Vec<(String, Seen)>> = Mutex::new(Vec::new());

struct Into<'f>(&'f mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

/// What a run's span is about.
struct Of(String);

impl<S: tracing::Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let mut within: Vec<&'static str> = span.scope().skip(1).map(|outer| outer.name()).collect();
        within.reverse();
        if span.name() == "run" {
            span.extensions_mut().insert(Of(fields["mapping"].clone()));
        }
        let mapping =
            span.scope().from_root().find_map(|outer| Some(outer.extensions().get::<Of>()?.0.clone()));
        if mapping.is_some_and(|mapping| mapping.starts_with("seen_")) {
            let seen = Seen { name: span.name(), within, fields };
            SPANS.get().unwrap().lock().unwrap().insert(id.into_u64(), seen);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = SPANS.get().unwrap().lock().unwrap().get_mut(&id.into_u64()) {
            values.record(&mut Into(&mut seen.fields));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let Some(scope) = context.event_scope(event) else { return };
        let scope: Vec<_> = scope.from_root().collect();
        let Some(mapping) = scope.iter().find_map(|span| Some(span.extensions().get::<Of>()?.0.clone()))
        else {
            return;
        };
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let within = scope.iter().map(|span| span.name()).collect();
        if mapping.starts_with("seen_") {
            EVENTS.lock().unwrap().push((mapping, Seen { name: "event", within, fields }));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        // Its number may be given to another span.
        if let Some(seen) = SPANS.get().unwrap().lock().unwrap().remove(&id.into_u64()) {
            EVENTS.lock().unwrap().push(("closed".to_owned(), seen));
        }
    }
}

/// What a run of documents under this name says: its closed spans, its events.
async fn observed(shop: &Shop, name: &str, feed: &[Value]) -> (Vec<Seen>, Vec<Seen>) {
    SPANS.get_or_init(|| {
        // All tests of the process are seen: of others' events as little as may be.
        let matters = |metadata: &tracing::Metadata<'_>| {
            let of_document = metadata.fields().field("outcome").is_some();
            let kind = metadata.is_span() || of_document || *metadata.level() <= tracing::Level::INFO;
            metadata.target().starts_with("rowdelta") && kind
        };
        let filter = tracing_subscriber::filter::filter_fn(matters);
        let subscriber = Registry::default().with(Collector.with_filter(filter));
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Mutex::default()
    });
    let _ = sync(shop, name, feed).await;
    let (spans, events) = EVENTS.lock().unwrap().drain(..).partition::<Vec<_>, _>(|(of, _)| of == "closed");
    let seen = |list: Vec<(String, Seen)>| list.into_iter().map(|(_, seen)| seen).collect();
    (seen(spans), seen(events))
}

fn fields(seen: &Seen, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| seen.fields.get(*name).cloned().unwrap_or_else(|| panic!("{name} in {seen:?}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_have_their_fields_and_nest() {
    let shop = Shop::open().await;
    let feed = [order("A", 1), order("B", 1), json!({ "number": "BAD", "units": "many" })];
    let (spans, events) = observed(&shop, "seen_shop", &feed).await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let run = named("run")[0];
    assert_eq!(fields(run, &["mapping", "purpose"]), ["seen_shop", "sync"]);
    assert_eq!(run.fields["run"], shop.rows("SELECT max(id) FROM rowdelta.run").await[0]);
    assert!(run.within.is_empty());

    let batch = named("batch")[0];
    assert_eq!(fields(batch, &["round", "batch", "documents"]), ["feed", "1", "3"]);
    let bytes: usize = feed.iter().map(|doc| doc.to_string().len()).sum();
    assert_eq!((&batch.within[..], &batch.fields["bytes"]), (&["run"][..], &bytes.to_string()));

    // Once more after the questions to the catalogue were answered.
    let documents = named("document");
    assert!(documents.iter().all(|span| span.within == ["run", "batch"]), "{documents:?}");
    let known: Vec<_> = documents.iter().filter(|span| span.fields.contains_key("rows")).collect();
    let known: Vec<_> = known.iter().map(|span| fields(span, &["document", "line", "rows"])).collect();
    assert_eq!(known, [["A", "1", "3"], ["B", "2", "3"]]);

    let transaction = named("transaction")[0];
    assert_eq!(transaction.within, ["run", "batch"]);
    assert_eq!(
        fields(transaction, &["round", "documents", "rows", "outcome"]),
        ["feed", "2", "6", "committed"]
    );

    let said =
        |message: &str| events.iter().filter(|event| event.fields["message"] == message).collect::<Vec<_>>();
    let stored: Vec<_> = said("stored").iter().map(|event| fields(event, &["document", "outcome"])).collect();
    assert_eq!(stored, [["A", "new"], ["B", "new"]]);
    assert!(said("stored").iter().all(|event| event.within == ["run", "batch", "transaction"]));
    assert!(said("document failed")[0].fields["failure"].starts_with("BAD (document 3): units: "));
    let ended = said("run ended")[0];
    assert_eq!(
        fields(ended, &["status", "read", "new", "failed", "rows_written"]),
        ["failed", "3", "2", "1", "7"]
    );
    assert_eq!(ended.within, ["run"]);

    let page = page();
    for field in spans.iter().chain(&events).flat_map(|seen| seen.fields.keys()) {
        assert!(field == "message" || page.contains(&format!("`{field}`")), "{field} is not documented");
    }

    // The same again: but for the run there is nothing to tell.
    let (spans, events) = observed(&shop, "seen_shop", &feed[..2]).await;
    assert_eq!(spans.iter().map(|span| span.name).collect::<Vec<_>>(), ["run"]);
    assert_eq!(events.iter().map(|event| &event.fields["message"]).collect::<Vec<_>>(), ["run ended"]);
}

/// The page that says what all of it is called.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability.md");
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_say_which_run_batch_and_document_they_are_about() {
    let shop = Shop::open().await;
    let mapping = shop.scratch.write("m.toml", MAPPING);
    let logged = |format: &str, level: &str, feed: &[Value]| {
        let feed = shop.scratch.write("feed.ndjson", ndjson(feed));
        let mut command = binary();
        command.args(["sync", "-d", shop.db.url(), "--log", format, "-m"]).arg(&mapping).arg(feed);
        let output = command.env("ROWDELTA_LOG", level).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let said = logged("json", "debug", &[order("A", 1)]);
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let stored =
        lines.iter().find(|line| line["fields"]["message"] == "stored").unwrap_or_else(|| panic!("{said}"));
    assert_eq!((&stored["fields"]["document"], &stored["fields"]["outcome"]), (&json!("A"), &json!("new")));
    let spans: Vec<&Value> = stored["spans"].as_array().unwrap().iter().map(|span| &span["name"]).collect();
    assert_eq!(spans, ["run", "batch", "transaction"]);
    assert_eq!(stored["spans"][0]["mapping"], "shop");
    assert!(stored["spans"][0]["run"].is_number(), "{stored}");

    let said = logged("text", "warn", &[json!({ "number": "BAD", "units": "many" })]);
    let line = said.lines().next().unwrap();
    assert!(line.contains(" WARN run{mapping=\"shop\" purpose=\"sync\" run="), "{said}");
    assert!(line.contains("document failed failure=BAD ("), "{said}");
}
