//! Feeds made of what a program has at hand: bytes, JSON values, its own types.
//!
//! [`Engine::sync`](super::Engine::sync) takes a stream of [`FeedItem`]s. These make one:
//!
//! | of | by |
//! |---|---|
//! | an iterator or a collection of documents | [`of`] |
//! | a stream of bytes, strings or [`serde_json::Value`]s | [`from_stream`] |
//! | a stream that may break off, a paged API say | [`from_results`] |
//! | a stream of values of a type that can be serialized | [`from_serde`] |
//! | a collection of such values | [`of_serde`] |
//!
//! Bytes are taken as they are ([`Bytes`](bytes::Bytes) and `Vec<u8>` without a copy) and hashed: the fastest way, if the
//! source gives the same document in the same bytes. Values are written as JSON first, always in the same way, with the
//! members of a map in the order of the map; so are typed values, in the order of their fields.
//!
//! ```
//! use rowdelta::engine::documents;
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct Order {
//!     number: &'static str,
//!     lines: Vec<u32>,
//! }
//!
//! let typed = documents::of_serde([Order { number: "7", lines: vec![1, 2] }]);
//! let bytes = documents::of([r#"{"number":"7","lines":[1,2]}"#]);
//! # use futures_util::{FutureExt as _, StreamExt as _};
//! let (typed, bytes): (Vec<_>, Vec<_>) =
//!     (typed.collect().now_or_never().unwrap(), bytes.collect().now_or_never().unwrap());
//! assert_eq!(typed, bytes);
//! ```

use std::fmt::Display;

use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;

use crate::document::{Document, Origin};
use crate::engine::{FeedError, FeedItem};

/// A feed of documents that are there already: bytes, strings, [`serde_json::Value`]s or [`Document`]s.
pub fn of<I>(documents: I) -> impl Stream<Item = FeedItem> + Send
where
    I: IntoIterator<Item: Into<Document>, IntoIter: Send>,
{
    stream::iter(documents.into_iter().map(|document| Ok(document.into())))
}

/// A feed of documents as they come.
pub fn from_stream<S>(documents: S) -> impl Stream<Item = FeedItem> + Send
where
    S: Stream<Item: Into<Document>> + Send,
{
    documents.map(|document| Ok(document.into()))
}

/// A feed of documents that come from where something may go wrong. An error breaks the run off after the documents
/// before it: what the feed has behind it is not known.
pub fn from_results<S, D, E>(documents: S) -> impl Stream<Item = FeedItem> + Send
where
    S: Stream<Item = Result<D, E>> + Send,
    D: Into<Document>,
    E: Display,
{
    let mut place = 0;
    documents.map(move |document| {
        place += 1;
        document.map(Into::into).map_err(|error| FeedError {
            origin: Origin { line: place, ..Origin::default() },
            message: error.to_string(),
            fatal: true,
        })
    })
}

/// A feed of values that are serialized as they come. One that cannot be (a map whose keys are no strings) fails as a
/// document.
pub fn from_serde<S>(values: S) -> impl Stream<Item = FeedItem> + Send
where
    S: Stream<Item: Serialize> + Send,
{
    let mut place = 0;
    values.map(move |value| {
        place += 1;
        serialized(&value, place)
    })
}

/// A feed of values that are there already, serialized when they are read.
pub fn of_serde<I>(values: I) -> impl Stream<Item = FeedItem> + Send
where
    I: IntoIterator<Item: Serialize, IntoIter: Send>,
{
    from_serde(stream::iter(values))
}

fn serialized(value: &impl Serialize, place: u64) -> FeedItem {
    Document::serialize(value).map_err(|error| FeedError {
        origin: Origin { line: place, ..Origin::default() },
        message: format!("cannot be written as JSON: {error}"),
        fatal: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use std::collections::BTreeMap;

    fn all(feed: impl Stream<Item = FeedItem>) -> Vec<FeedItem> {
        feed.collect().now_or_never().expect("nothing to wait for")
    }

    #[test]
    fn bytes_are_taken_as_they_are() {
        let bytes = Bytes::from_static(b"{ \"a\": 1.0 }");
        let [Ok(document)] = &all(of([bytes.clone()]))[..] else { panic!("one document") };
        assert_eq!(document.bytes.as_ptr(), bytes.as_ptr(), "without a copy");
        assert_eq!(all(of(["{}"])), all(of([b"{}".to_vec()])));
        assert_eq!(all(of([String::from("{}")])), all(from_stream(stream::iter([serde_json::json!({})]))));
    }

    #[test]
    fn a_source_that_fails_breaks_the_feed_off() {
        let source = stream::iter([Ok("{}"), Err("connection reset")]);
        let items = all(from_results(source));
        let error = items[1].as_ref().unwrap_err();
        assert!(items[0].is_ok() && error.fatal);
        assert_eq!(error.to_string(), "document 2: connection reset");
    }

    #[test]
    fn a_value_that_is_no_json_fails_alone() {
        let maps = [BTreeMap::from([((1, 2), 3)]), BTreeMap::new()];
        let items = all(of_serde(maps));
        let error = items[0].as_ref().unwrap_err();
        assert!(items[1].is_ok() && !error.fatal);
        assert_eq!(error.to_string(), "document 1: cannot be written as JSON: key must be a string");
    }
}
