//! COPY against INSERT: from how many rows on does COPY cost less?
//!
//! The engine sends new rows of a table by `COPY … (FORMAT binary)` from `COPY_ROWS_MIN` rows on and by
//! `INSERT … SELECT unnest` below. Both are timed here as `postgres::write` sends them (COPY through a statement
//! prepared for the occasion, INSERT by one typed query), in transactions of their own, one after the other
//! at every size, on a local server with fsync on. `docs/performance.md` has the outcome.
//!
//! `cargo bench --bench write` measures; without `--bench` (as in `cargo test --benches`) it only checks that
//! both ways write the same rows.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, pin_mut};
use rowdelta::postgres::local::{LocalServer, Options};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Transaction};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIZES: [usize; 11] = [1, 5, 10, 20, 35, 50, 75, 100, 200, 500, 1_000];
const ROUNDS: usize = 101;
/// `documento` of `examples/convocatorias`, without the columns that the feed does not know.
const TABLE: &str = "CREATE TABLE documento (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    convocatoria_id bigint NOT NULL,
    id_oficial      bigint NOT NULL UNIQUE,
    descripcion     text NOT NULL,
    nombre_fic      text NOT NULL,
    longitud        bigint NOT NULL,
    dat_mod         date NOT NULL,
    dat_publicacion date
);
CREATE INDEX ON documento (convocatoria_id)";
const COLUMNS: &str =
    "convocatoria_id, id_oficial, descripcion, nombre_fic, longitud, dat_mod, dat_publicacion";

fn main() -> Outcome<()> {
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let server = LocalServer::start(Options::durable().setting("autovacuum", "off"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute(TABLE).await?;
        println!("PostgreSQL {}, {rounds} rounds; µs of the statement", server.major_version());
        println!("{:>5}  {:>22}  {:>22}", "rows", "lower tenth: COPY/INSERT", "median: COPY/INSERT");
        for rows in SIZES {
            measure(&mut client, rows, rounds).await?;
        }
        drop(client);
        connection.await?.map_err(Into::into)
    })
}

/// Both ways at one size, taking turns at who goes first.
async fn measure(client: &mut Client, rows: usize, rounds: usize) -> Outcome<()> {
    client.batch_execute("TRUNCATE documento; CHECKPOINT").await?;
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..rounds {
        for turn in 0..2 {
            let way = (round + turn) % 2;
            let first_id = ((2 * round + way) * rows) as i64;
            times[way].push(timed(client, way == 0, first_id, rows).await?);
        }
    }
    let written: i64 = client.query_one("SELECT count(*) FROM documento", &[]).await?.get(0);
    assert_eq!(written as usize, 2 * rounds * rows);
    let sums = "SELECT count(DISTINCT s) FROM (SELECT md5(string_agg(ROW(id_oficial % $1, descripcion, nombre_fic, \
                longitud, dat_mod, dat_publicacion)::text, '' ORDER BY id_oficial)) s FROM documento GROUP BY id_oficial / $1)";
    let distinct: i64 = client.query_one(&format!("{sums} AS parts"), &[&(rows as i64)]).await?.get(0);
    assert_eq!(distinct, 1, "COPY and INSERT write the same rows");
    times.iter_mut().for_each(|times| times.sort_unstable());
    // The lower tenth is what a machine that is busy with other things lets through undisturbed.
    let column = |part: usize| {
        let [copy, insert] = [0, 1].map(|way| times[way][times[way].len() / part]);
        let ratio = copy.as_secs_f64() / insert.as_secs_f64();
        format!("{:>7} {:>7} {ratio:>6.2}", copy.as_micros(), insert.as_micros())
    };
    println!("{rows:>5}  {:>24}  {:>22}", column(10), column(2));
    Ok(())
}

/// The time of the statement. BEGIN and COMMIT cost the same either way, and the disk more than both.
async fn timed(client: &mut Client, copy: bool, first_id: i64, rows: usize) -> Outcome<Duration> {
    let documents = Documents::generate(first_id, rows);
    let transaction = client.transaction().await?;
    let start = Instant::now();
    let written =
        if copy { documents.copy(&transaction).await? } else { documents.insert(&transaction).await? };
    let statement = start.elapsed();
    transaction.commit().await?;
    assert_eq!(written as usize, rows);
    Ok(statement)
}

/// New rows, column by column. Dates are days since 2000, as on the wire.
struct Documents {
    convocatoria_ids: Vec<i64>,
    ids: Vec<i64>,
    descriptions: Vec<String>,
    names: Vec<String>,
    lengths: Vec<i64>,
    dates: Vec<Date>,
}

/// A `date` as it is on the wire.
#[derive(Clone, Copy, Debug)]
struct Date(i32);

impl ToSql for Date {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_i32(self.0);
        Ok(tokio_postgres::types::IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }

    tokio_postgres::types::to_sql_checked!();
}

impl Documents {
    fn generate(first_id: i64, rows: usize) -> Self {
        let each = 0..rows as i64;
        Documents {
            convocatoria_ids: each.clone().map(|row| (first_id + row) / 3).collect(),
            ids: each.clone().map(|row| first_id + row).collect(),
            descriptions: each
                .clone()
                .map(|row| format!("Texto en castellano de la convocatoria {row}"))
                .collect(),
            names: each.clone().map(|row| format!("RESOL CONCESIÓN T{row}_firmado.pdf")).collect(),
            lengths: each.clone().map(|row| 196_910 + row).collect(),
            dates: each.map(|row| Date(8_000 + (row % 365) as i32)).collect(),
        }
    }

    async fn insert(&self, transaction: &Transaction<'_>) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "INSERT INTO documento ({COLUMNS}) OVERRIDING SYSTEM VALUE SELECT v.c0, v.c1, v.c2, v.c3, v.c4, v.c5, v.c6 \
             FROM unnest($1, $2, $3, $4, $5, $6, $7) AS v (c0, c1, c2, c3, c4, c5, c6)"
        );
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&self.convocatoria_ids, Type::INT8_ARRAY),
            (&self.ids, Type::INT8_ARRAY),
            (&self.descriptions, Type::TEXT_ARRAY),
            (&self.names, Type::TEXT_ARRAY),
            (&self.lengths, Type::INT8_ARRAY),
            (&self.dates, Type::DATE_ARRAY),
            (&self.dates, Type::DATE_ARRAY),
        ];
        transaction.execute_typed(&sql, &params).await
    }

    async fn copy(&self, transaction: &Transaction<'_>) -> Result<u64, tokio_postgres::Error> {
        let sql = format!("COPY documento ({COLUMNS}) FROM STDIN (FORMAT binary)");
        let sink = transaction.copy_in::<_, Bytes>(&sql).await?;
        pin_mut!(sink);
        sink.send(self.stream()).await?;
        sink.finish().await
    }

    fn stream(&self) -> Bytes {
        let mut stream = BytesMut::from(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..]);
        for row in 0..self.ids.len() {
            let date = self.dates[row].0.to_be_bytes();
            let cells: [&[u8]; 7] = [
                &self.convocatoria_ids[row].to_be_bytes(),
                &self.ids[row].to_be_bytes(),
                self.descriptions[row].as_bytes(),
                self.names[row].as_bytes(),
                &self.lengths[row].to_be_bytes(),
                &date,
                &date,
            ];
            stream.put_i16(cells.len() as i16);
            for cell in cells {
                stream.put_i32(cell.len() as i32);
                stream.put_slice(cell);
            }
        }
        stream.put_i16(-1);
        stream.freeze()
    }
}
