//! Strings in the form that a column asks for: without U+0000, in Unicode's normal form C.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::json::Json;
use crate::mapping::{Nul, TextForm};

/// A value with its strings, names of members included, in a form; and whether U+0000 was taken out of one.
pub(crate) fn in_form<'j>(json: &'j Json<'_>, form: TextForm) -> (Cow<'j, Json<'j>>, bool) {
    let holds_nul = form.nul != Nul::Reject && any_string(json, &|text| text.as_bytes().contains(&0));
    let is_other = || form.nfc && any_string(json, &|text| !is_normal(text));
    if !holds_nul && !is_other() {
        return (Cow::Borrowed(json), false);
    }
    (Cow::Owned(formed(json, form)), holds_nul)
}

fn any_string(json: &Json<'_>, test: &dyn Fn(&str) -> bool) -> bool {
    match json {
        Json::String(text) => test(text),
        Json::Array(items) => items.iter().any(|item| any_string(item, test)),
        Json::Object(members) => members.iter().any(|(name, value)| test(name) || any_string(value, test)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

fn is_normal(text: &str) -> bool {
    text.is_ascii() || is_nfc(text)
}

fn formed<'j>(json: &'j Json<'_>, form: TextForm) -> Json<'j> {
    match json {
        Json::Null => Json::Null,
        Json::Bool(value) => Json::Bool(*value),
        Json::Number(text) => Json::Number(text),
        Json::String(text) => Json::String(string(text, form)),
        Json::Array(items) => Json::Array(items.iter().map(|item| formed(item, form)).collect()),
        Json::Object(members) => Json::Object(
            members.iter().map(|(name, value)| (string(name, form), formed(value, form))).collect(),
        ),
    }
}

/// U+0000 goes first: letters that it kept apart may compose.
fn string(text: &str, form: TextForm) -> Cow<'_, str> {
    let text = match form.nul {
        Nul::Strip if text.contains('\0') => text.replace('\0', "").into(),
        Nul::Replace if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        _ => Cow::Borrowed(text),
    };
    if form.nfc && !is_normal(&text) { text.nfc().collect::<String>().into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, nul: Nul, nfc: bool) -> (String, bool) {
        let json = Json::parse(json.as_bytes()).unwrap();
        let (formed, nuls) = in_form(&json, TextForm { nul, nfc });
        (format!("{formed:?}"), nuls)
    }

    fn parsed(json: &str) -> String {
        format!("{:?}", Json::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn p09_u0000_goes_or_is_replaced_wherever_it_is() {
        let text = r#"{"a\u0000": ["\u0000x\u0000", 1, null, true], "b": "plain"}"#;
        let stripped = parsed(r#"{"a": ["x", 1, null, true], "b": "plain"}"#);
        let replaced = parsed(r#"{"a�": ["�x�", 1, null, true], "b": "plain"}"#);
        assert_eq!(of(text, Nul::Strip, false), (stripped, true));
        assert_eq!(of(text, Nul::Replace, true), (replaced, true));
        assert_eq!(of(text, Nul::Reject, true), (parsed(text), false));
        assert_eq!(of(r#""plain""#, Nul::Strip, true), (parsed(r#""plain""#), false));
    }

    #[test]
    fn p09_the_normal_form_is_composed_and_nothing_else_changes() {
        let (decomposed, composed) =
            (r#"["e\u0301", {"n\u0303": "\u2126 \ufb01"}]"#, r#"["é", {"ñ": "Ω ﬁ"}]"#);
        assert_eq!(of(decomposed, Nul::Reject, true), (parsed(composed), false));
        assert_eq!(of(decomposed, Nul::Strip, false), (parsed(decomposed), false));
        assert_eq!(of(r#""e\u0000\u0301""#, Nul::Strip, true), (parsed(r#""é""#), true));
    }

    #[test]
    fn what_is_in_form_already_is_not_copied() {
        let json = Json::parse(r#"["a", "é", {"b": 1}]"#.as_bytes()).unwrap();
        assert!(matches!(in_form(&json, TextForm { nul: Nul::Strip, nfc: true }), (Cow::Borrowed(_), false)));
    }
}
