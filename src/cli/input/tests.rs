use super::text::BLOCK_BYTES;
use super::*;
use std::io::{Cursor, Write};
use std::sync::atomic::AtomicU32;

/// A directory that goes when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rowdelta-input-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn feed(paths: &[PathBuf], document_bytes_max: usize) -> Vec<FeedItem> {
    Feed::open(paths, FeedOptions { document_bytes_max }).unwrap().collect()
}

/// An item as text: `line: document`, `line.item: document`, or what is wrong, without the file.
fn said(item: &FeedItem) -> String {
    let (origin, text) = match item {
        Ok(document) => (&document.origin, String::from_utf8(document.bytes.to_vec()).unwrap()),
        Err(error) => {
            (&error.origin, format!("{}{}", if error.fatal { "fatal: " } else { "" }, error.message))
        }
    };
    let item = origin.item.map(|item| format!(".{item}")).unwrap_or_default();
    format!("{}{item}: {text}", origin.line)
}

/// What a file of this name says.
fn read_named(name: &str, bytes: impl AsRef<[u8]>, document_bytes_max: usize) -> Vec<String> {
    let temp = Temp::new();
    feed(&[temp.write(name, bytes)], document_bytes_max).iter().map(said).collect()
}

fn read(bytes: impl AsRef<[u8]>) -> Vec<String> {
    read_named("feed", bytes, 1000)
}

const NONE: [&str; 0] = [];

#[test]
fn blank_lines_count_but_are_no_documents() {
    assert_eq!(read("{}\n\n \t\r\n[1]\n"), ["1: {}", "4: [1]"]);
    assert_eq!(read(""), NONE);
    assert_eq!(read("\n\r\n"), NONE);
    assert_eq!(read("\n".repeat(2 * BLOCK_BYTES)), NONE);
}

#[test]
fn the_last_line_needs_no_end() {
    assert_eq!(read("{}\n[1]"), ["1: {}", "2: [1]"]);
    assert_eq!(read("1"), ["1: 1"]);
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_are_no_part_of_a_document() {
    assert_eq!(read("\u{feff}{}\r\n[1]\r\n"), ["1: {}", "2: [1]"]);
    assert_eq!(read("\u{feff}"), NONE);
    assert_eq!(read("\u{feff}\r\n[1]"), ["2.1: 1"]);
    assert_eq!(read(gzip("\u{feff}{}".as_bytes())), ["1: {}"]);
    assert_eq!(read("{}\n\u{feff}[1]"), ["1: {}", "2: \u{feff}[1]"], "only at the start");
}

#[test]
fn what_a_file_is_packed_with_is_told_by_its_bytes() {
    let text = b"{}\n[1]\n";
    assert_eq!(read(gzip(text)), ["1: {}", "2: [1]"]);
    assert_eq!(read(zstd(text)), ["1: {}", "2: [1]"]);
    assert_eq!(read(gzip(b"")), NONE);
    assert_eq!(read(gzip(b"[{}]")), ["1.1: {}"]);
}

#[test]
fn a_packed_file_of_several_parts_is_one_file() {
    let expected = ["1: {\"a\":1}", "2: [1]"];
    assert_eq!(read([gzip(b"{\"a\""), gzip(b":1}\n[1]")].concat()), expected);
    assert_eq!(read([zstd(b"{\"a\""), zstd(b":1}\n[1]")].concat()), expected);
    let skipped = b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx";
    assert_eq!(read([skipped.to_vec(), zstd(b"{\"a\":1}\n[1]")].concat()), expected);
}

#[test]
fn several_files_are_one_feed_and_each_counts_its_documents() {
    let temp = Temp::new();
    let paths = [temp.write("plain", "1\n2"), temp.write("packed", gzip(b"[{},{}]"))];
    let items = feed(&paths, 1000);
    assert_eq!(items.iter().map(said).collect::<Vec<_>>(), ["1: 1", "2: 2", "1.1: {}", "1.2: {}"]);
    let file = |item: &FeedItem| item.as_ref().unwrap().origin.file.clone().unwrap();
    assert_eq!(*file(&items[1]), *paths[0].to_string_lossy());
    assert_eq!(*file(&items[2]), *paths[1].to_string_lossy());
}

#[test]
fn the_layout_is_told_by_the_first_line_that_is_not_blank() {
    assert_eq!(read(" \n\t[{\"a\":\n1}, {}]\n"), ["2.1: {\"a\":\n1}", "3.2: {}"]);
    assert_eq!(read("\n{\n\"a\":1}{}\n\n  {}"), ["2.1: {\n\"a\":1}", "3.2: {}", "5.3: {}"]);
    assert_eq!(read("{\"a\":\"}{\\\"\"}\n[{}]\n"), ["1: {\"a\":\"}{\\\"\"}", "2: [{}]"]);
    assert_eq!(read("{} {\"b\":1}\n{}"), ["1.1: {}", "1.2: {\"b\":1}", "2.3: {}"]);
    assert_eq!(read("{} x\n{}"), ["1: {} x", "2: {}"], "a bad line fails alone");
}

#[test]
fn a_name_of_lines_is_taken_at_its_word() {
    for name in ["x.ndjson", "x.jsonl", "x.ndjson.gz", "X.JSONL.ZST"] {
        assert_eq!(read_named(name, "[1\n{\n{}", 1000), ["1: [1", "2: {", "3: {}"], "{name}");
    }
    assert_eq!(read_named("x.json", "[1\n]", 1000), ["1.1: 1"]);
}

#[test]
fn a_first_line_longer_than_a_block_is_decided_by_its_first_block() {
    let long = "x".repeat(BLOCK_BYTES);
    let object = format!("{{\"a\":\"{long}\"}}");
    let count = |text: String| read_named("feed", text, 1 << 20).len();
    assert_eq!(count(format!("{object}\n{object}\n{{")), 3, "lines, of which the last is bad");
    assert_eq!(count(format!("{{}}{object}{object}\n{{}}")), 4, "objects");
    assert_eq!(count(format!("[{object},{object}]")), 2, "an array");
}

#[test]
fn elements_of_any_kind_go_on() {
    assert_eq!(
        read(r#"[ {"a":[{}]} ,[1,"]"],"x,\"]",-1.5e3,null,nonsense ,{"a":}]"#),
        [
            r#"1.1: {"a":[{}]}"#,
            r#"1.2: [1,"]"]"#,
            r#"1.3: "x,\"]""#,
            "1.4: -1.5e3",
            "1.5: null",
            "1.6: nonsense",
            r#"1.7: {"a":}"#
        ]
    );
    assert_eq!(read("[\n]\n"), NONE);
}

#[test]
fn what_does_not_belong_between_documents_ends_the_feed() {
    let cases = [
        ("[{}\n{}]", "2: fatal: after item 1: expected `,` or `]`, found `{`"),
        ("[{}\n,]", "2: fatal: after item 1: expected a document, found `]`"),
        ("[{},,{}]", "1: fatal: after item 1: expected a document, found `,`"),
        ("[{}, ", "1: fatal: after item 1: expected a document, found the end of the file"),
        ("[{}", "1: fatal: after item 1: expected `,` or `]`, found the end of the file"),
        ("[{}]\n{}", "2: fatal: after item 1: expected nothing after the array, found `{`"),
        ("[{}\u{e9}]", "1: fatal: after item 1: expected `,` or `]`, found `\\xc3`"),
        ("[{},\n{\n]", "3: fatal: after item 1: `]` closes the `{` of line 2"),
        ("[{},\n\"a\n", "3: fatal: after item 1: the file ends within the document that begins on line 2"),
        ("[{},1", "1: fatal: after item 1: the file ends within the document that begins on line 1"),
        ("{}{}\n,{}", "2: fatal: after item 2: expected an object, found `,`"),
        ("{}{\n", "2: fatal: after item 1: the file ends within the document that begins on line 1"),
    ];
    for (text, fault) in cases {
        let found = read(text);
        assert_eq!(found.last().unwrap(), fault, "{text}");
        assert!(found[..found.len() - 1].iter().all(|item| item.ends_with(": {}")), "{found:?}");
    }
    assert_eq!(read("["), ["1: fatal: expected a document, found the end of the file"]);
}

#[test]
fn a_document_that_is_too_long_fails_alone() {
    let long = "x".repeat(3 * BLOCK_BYTES);
    let file = format!("1234567890\r\n{long}\n12345678901\n{{}}\n{long}");
    let too_long = |place: &str, bytes: usize| {
        format!("{place}: the document has {bytes} bytes; at most 10 are read (--document-bytes-max)")
    };
    let expected = [
        "1: 1234567890".into(),
        too_long("2", long.len()),
        too_long("3", 11),
        "4: {}".into(),
        too_long("5", long.len()),
    ];
    assert_eq!(read_named("feed", file, 10), expected);
    let object = format!("{{\n\"{long}\":0}}");
    let expected = ["1.1: 1".into(), too_long("1.2", object.len()), "2.3: {\"a\":1}".into()];
    assert_eq!(read_named("feed", format!("[1,{object},{{\"a\":1}}]"), 10), expected);
}

#[test]
fn a_long_document_is_not_held_once_it_is_too_long() {
    let mut document = text::Partial::default();
    for _ in 0..100 {
        document.push(&[b'x'; 1000], 5000);
        assert!(document.bytes.capacity() <= 8192);
    }
    assert_eq!(document.length, 100_000);
}

/// What is delivered before the feed breaks off, and how it says so.
fn torn(bytes: &[u8]) -> (Vec<String>, FeedError) {
    let temp = Temp::new();
    let mut items = feed(&[temp.write("torn", bytes), temp.write("second", "never read")], 1 << 20);
    let error = items.pop().unwrap().unwrap_err();
    assert!(error.fatal && error.origin.file.as_ref().unwrap().ends_with("torn"));
    let text = |item: FeedItem| String::from_utf8(item.unwrap().bytes.into()).unwrap();
    (items.into_iter().map(text).collect(), error)
}

#[test]
fn a_torn_stream_ends_the_feed_after_its_complete_documents() {
    let mut seed = fastrand::Rng::with_seed(1);
    let documents: Vec<String> = (0..20_000).map(|_| format!("{{\"{}\":0}}", seed.u64(..))).collect();
    let texts = [documents.join("\n"), format!("[{}]", documents.join(",")), documents.concat()];
    for (text, lines) in texts.iter().zip([true, false, false]) {
        for packed in [gzip(text.as_bytes()), zstd(text.as_bytes())] {
            let (found, error) = torn(&packed[..packed.len() / 2]);
            assert!(!found.is_empty() && found.len() < documents.len());
            assert_eq!(found, documents[..found.len()], "no half of a document");
            assert_eq!(error.origin.line, if lines { found.len() as u64 } else { 1 });
            let (found, _) = torn(&packed[..packed.len() - 1]);
            assert!(
                found.len() < documents.len() || !lines,
                "the last line is complete only if the stream is"
            );
        }
    }
}

/// Fails when its bytes have been read, as a pipe can.
struct Failing(Cursor<&'static [u8]>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_read_error_comes_after_the_complete_documents_before_it() {
    let said_of = |bytes: &'static [u8]| {
        let mut documents =
            documents(Path::new("-"), Box::new(Failing(Cursor::new(bytes))), 1000, 1000).unwrap();
        let items: Vec<FeedItem> = std::iter::from_fn(|| documents.next()).take(3).collect();
        items.iter().map(said).collect::<Vec<_>>()
    };
    let lines = ["1: 1", "3: 22", "3: fatal: cannot be read beyond this line: gone"];
    assert_eq!(said_of(b"1\n\n22\n3"), lines);
    let array = ["1.1: 1", "1.2: 22", "1: fatal: after item 2: cannot be read beyond this line: gone"];
    assert_eq!(said_of(b"[1,22,3"), array);
}

#[test]
fn a_damaged_stream_is_an_error_with_its_cause() {
    let mut packed = gzip(b"1\n2\n");
    let at = packed.len() - 6;
    packed[at] ^= 1;
    let (_, error) = torn(&packed);
    assert!(error.to_string().contains(": cannot be read beyond this line: "), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_found_before_any_is_read() {
    let temp = Temp::new();
    let paths = [temp.write("feed", "1\n"), PathBuf::from("no/such/file")];
    let error = Feed::open(&paths, FeedOptions::default()).err().unwrap();
    assert!(error.to_string().starts_with("no/such/file: cannot be read: "), "{error}");
}

#[test]
fn a_directory_stands_for_the_feed_files_below_it() {
    let temp = Temp::new();
    let names =
        ["b.json", "a/z.jsonl.gz", "a/b/c.NDJSON", "a.json.zst", "a/.x.json", ".a/x.json", "x.txt", "x.gz"];
    for name in names {
        temp.write(name, "{}");
    }
    assert_eq!(found_in(&temp.0), ["a.json.zst", "a/b/c.NDJSON", "a/z.jsonl.gz", "b.json"]);
    assert_eq!(feed(&[temp.0.join("a"), temp.0.join("b.json")], 1000).len(), 3);
}

/// The files that a directory stands for, by their paths in it.
fn found_in(directory: &Path) -> Vec<String> {
    let files = files::of(directory).unwrap();
    files.iter().map(|file| file.strip_prefix(directory).unwrap().to_string_lossy().into()).collect()
}

#[cfg(unix)]
#[test]
fn links_to_files_are_followed_and_those_to_directories_are_not() {
    use std::os::unix::fs::symlink;
    let temp = Temp::new();
    let file = temp.write("feeds/a.json", "{}");
    let directory = temp.0.join("feeds");
    symlink(&file, directory.join("b.json")).unwrap();
    symlink(&directory, directory.join("c.json")).unwrap();
    assert_eq!(found_in(&directory), ["a.json", "b.json"]);
    let link = temp.0.join("link");
    symlink(&directory, &link).unwrap();
    assert_eq!(found_in(&link), ["a.json", "b.json"], "one that is named itself");
    symlink("nowhere", directory.join("d.json")).unwrap();
    let error = files::of(&directory).unwrap_err().to_string();
    assert!(error.contains("d.json: cannot be read: "), "{error}");
}

#[test]
fn a_directory_without_feed_files_is_an_error() {
    let temp = Temp::new();
    temp.write("deep/x.txt", "{}");
    let error = Feed::open(std::slice::from_ref(&temp.0), FeedOptions::default()).err().unwrap();
    let endings = "no file in this directory, or below it, ends in .json, .ndjson or .jsonl";
    assert!(error.to_string().starts_with(&format!("{}: {endings}", temp.0.display())), "{error}");
}

/// Hands out a few bytes at a time.
struct Few(Cursor<Vec<u8>>, fastrand::Rng);

impl Read for Few {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.usize(1..8).min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}

/// All that a text says, read a few bytes at a time, under a name that leaves the layout open.
fn read_few(bytes: &[u8], seed: u64) -> Vec<FeedItem> {
    let few = Few(Cursor::new(bytes.to_vec()), fastrand::Rng::with_seed(seed));
    let mut ended = false;
    let documents = documents(Path::new("few"), Box::new(few), 16, 1 << 20).unwrap();
    documents
        .take_while(|item| {
            let go_on = !ended;
            ended = matches!(item, Err(error) if error.fatal);
            go_on
        })
        .collect()
}

/// A value whose strings are full of what a scanner could stumble over.
fn value(draw: &mut fastrand::Rng, depth: u32) -> serde_json::Value {
    let text = |draw: &mut fastrand::Rng| -> String {
        let letters = ['{', '}', '[', ']', '"', '\\', ',', ':', '\n', ' ', 'é', '\u{1f980}', '\u{1}', 'n'];
        (0..draw.usize(0..6)).map(|_| letters[draw.usize(..letters.len())]).collect()
    };
    match draw.u32(0..if depth == 0 { 3 } else { 5 }) {
        0 => draw.i32(..).into(),
        1 => serde_json::Value::Null,
        2 => text(draw).into(),
        3 => (0..draw.usize(0..4)).map(|_| value(draw, depth - 1)).collect(),
        _ => object(draw, depth, text),
    }
}

fn object(
    draw: &mut fastrand::Rng,
    depth: u32,
    text: impl Fn(&mut fastrand::Rng) -> String,
) -> serde_json::Value {
    let members: serde_json::Map<_, _> =
        (0..draw.usize(0..4)).map(|_| (text(draw), value(draw, depth - 1))).collect();
    members.into()
}

/// Documents, and what they look like in each layout.
fn drawn(seed: u64) -> (Vec<serde_json::Value>, [String; 5]) {
    let mut draw = fastrand::Rng::with_seed(seed);
    // The first member keeps an object from being empty, which on a line of its own would make it lines.
    let document = |draw: &mut fastrand::Rng| serde_json::json!({ "a": value(draw, 3), "[": value(draw, 2) });
    let documents: Vec<_> = (0..draw.usize(1..5)).map(|_| document(&mut draw)).collect();
    let pretty = |value| serde_json::to_string_pretty(value).unwrap();
    let array = serde_json::Value::from(documents.clone());
    let texts = [
        documents.iter().map(|document| format!("{document}\n")).collect(),
        array.to_string(),
        pretty(&array).replace('\n', "\r\n"),
        documents.iter().map(|document| pretty(document) + "\n").collect(),
        format!("{{\"a\":0}}{}", documents.iter().map(ToString::to_string).collect::<String>()),
    ];
    (documents, texts)
}

fn parsed(items: &[FeedItem]) -> Vec<serde_json::Value> {
    let value =
        |item: &FeedItem| serde_json::from_slice(&item.as_ref().map_err(ToString::to_string).unwrap().bytes);
    items.iter().map(|item| value(item).unwrap()).collect()
}

#[test]
fn a_chunk_holds_what_comes_without_waiting() {
    let temp = Temp::new();
    let lines = format!("{}\n", "x".repeat(99)).repeat(2 * BLOCK_BYTES / 100);
    let mut feed = Feed::open(&[temp.write("feed", &lines)], FeedOptions::default()).unwrap();
    let chunks: Vec<usize> =
        std::iter::from_fn(|| Some(feed.chunk(9_900).len()).filter(|&length| length > 0)).collect();
    // A line over two blocks ends a chunk before its time.
    assert!(
        chunks.iter().all(|&length| length <= 100) && chunks.len() <= lines.len() / 10_000 + 4,
        "{chunks:?}"
    );
    assert_eq!(chunks.iter().sum::<usize>(), lines.len() / 100);
}

#[test]
fn every_layout_gives_the_same_documents() {
    for seed in 0..300 {
        let (documents, texts) = drawn(seed);
        for (at, text) in texts.iter().enumerate() {
            for bytes in [text.as_bytes().to_vec(), gzip(text.as_bytes())] {
                let found = parsed(&read_few(&bytes, seed));
                assert_eq!(found[usize::from(at == 4)..], documents, "seed {seed}: {text}");
            }
        }
    }
}

#[test]
fn every_truncation_gives_the_first_documents_and_then_an_error() {
    for seed in 0..20 {
        let (_, texts) = drawn(seed);
        for text in &texts[1..] {
            let whole = parsed(&read_few(text.as_bytes(), seed));
            for cut in (0..text.trim_end().len()).filter(|cut| text.is_char_boundary(*cut)) {
                let cut = &text[..cut];
                let mut found = read_few(cut.as_bytes(), seed);
                let error = found.pop_if(|last| last.is_err());
                let found = parsed(&found);
                assert_eq!(found, whole[..found.len()], "seed {seed}: {cut}");
                // Where objects stand free, a text that ends after one of them is whole.
                let mut values = serde_json::Deserializer::from_str(cut).into_iter::<serde_json::Value>();
                assert_eq!(error.is_none(), values.all(|value| value.is_ok()), "seed {seed}: {cut}");
            }
        }
    }
}

#[test]
fn bytes_are_counted_as_the_files_have_them() {
    let temp = Temp::new();
    let packed = gzip("{\"a\":1}\n".repeat(1_000).as_bytes());
    let files = [temp.write("a.ndjson.gz", &packed), temp.write("b.json", "[{},\n{}]\n")];
    let mut feed = Feed::open(&files, FeedOptions::default()).unwrap();
    let (bytes, length) = (feed.bytes(), packed.len() as u64 + 9);
    assert_eq!((bytes.read(), bytes.total), (0, Some(length)));
    assert_eq!(feed.by_ref().count(), 1_002);
    assert_eq!(bytes.read(), length);
    let with_stdin = Feed::open(&[files[0].clone(), "-".into()], FeedOptions::default()).unwrap();
    assert_eq!(with_stdin.bytes().total, None);
}
