use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ask {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tail: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Strict {
    name: String,
}

#[test]
fn the_first_byte_tells_the_form() {
    for text in ["{}", "[1]", " {}", "\n{}", "\t[]", "\r\n{}"] {
        assert_eq!(Form::of(None, text.as_bytes()), Form::Json, "{text:?}");
    }
    for byte in [0x80_u8, 0x8f, 0xde, 0xdf] {
        assert_eq!(Form::of(None, &[byte]), Form::MessagePack, "{byte:#x}");
    }
    for text in ["HUP", "", "name: web", "9", "\"HUP\"", "é"] {
        assert_eq!(Form::of(None, text.as_bytes()), Form::Text, "{text:?}");
    }
}

#[test]
fn the_header_is_believed_before_the_first_byte() {
    let json = Some("Application/JSON; charset=utf-8");
    assert_eq!(Form::of(json, b"\x80"), Form::Json);
    assert_eq!(Form::of(Some("application/problem+json"), b"x"), Form::Json);
    for name in ["msgpack", "x-msgpack", "vnd.msgpack"] {
        let header = format!("application/{name}");
        assert_eq!(Form::of(Some(&header), b"{}"), Form::MessagePack);
    }
    for header in [
        "text/plain",
        "application/yaml",
        "text/x-yaml",
        "application/toml",
    ] {
        assert_eq!(Form::of(Some(header), b"{}"), Form::Text, "{header}");
    }
    for unknown in ["image/png", "", "json", "/"] {
        assert_eq!(Form::of(Some(unknown), b"{}"), Form::Json, "{unknown}");
    }
}

#[test]
fn an_empty_payload_asks_for_everything_by_default() {
    for form in [Form::MessagePack, Form::Json, Form::Text] {
        assert_eq!(decode::<Ask>(form, b"").unwrap(), Ask::default());
        decode::<()>(form, b"").unwrap();
        assert!(decode::<Strict>(form, b"").is_err());
    }
}

#[test]
fn messagepack_has_field_names() {
    let ask = Ask {
        name: "web".into(),
        ..Ask::default()
    };
    let bytes = encode_msgpack(&ask).unwrap();
    assert_eq!(bytes[0], 0x83);
    assert!(bytes.windows(5).any(|w| w == b"\xa4name"));
    assert_eq!(decode::<Ask>(Form::MessagePack, &bytes).unwrap(), ask);
}

#[test]
fn a_huge_declared_length_is_refused_before_anything_is_made() {
    let array = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let map = [0xdf, 0xff, 0xff, 0xff, 0xff];
    let text = [0xdb, 0xff, 0xff, 0xff, 0xff];
    let bin = [0xc6, 0xff, 0xff, 0xff, 0xff];
    let ext = [0xc9, 0xff, 0xff, 0xff, 0xff, 1];
    for bytes in [&array[..], &map, &text, &bin, &ext] {
        let error = decode_msgpack::<Value>(bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Broken { .. }), "{error}");
    }
}

#[test]
fn deep_nesting_is_refused_in_either_form() {
    let levels = 1_000_000;
    let mut arrays = vec![0x91_u8; levels];
    arrays.push(0xc0);
    let error = decode_msgpack::<Value>(&arrays).unwrap_err();
    assert!(matches!(error, DecodeError::TooDeep), "{error}");
    let error = decode_json::<Value>("[".repeat(levels).as_bytes()).unwrap_err();
    assert!(matches!(error, DecodeError::TooDeep), "{error}");
    let error: WireError = DecodeError::TooDeep.into();
    assert_eq!(error.code, ErrorCode::TooLarge);

    let just = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let value: Value = decode_json(just.as_bytes()).unwrap();
    let bytes = encode_msgpack(&value).unwrap();
    assert_eq!(decode_msgpack::<Value>(&bytes).unwrap(), value);
}

#[test]
fn brackets_inside_a_string_are_not_nesting() {
    let text = format!(
        "{{\"name\": \"{}\\\"{}\"}}",
        "[".repeat(500),
        "{".repeat(500)
    );
    assert!(decode_json::<Ask>(text.as_bytes()).is_ok());
}

#[test]
fn what_follows_the_value_is_an_error() {
    assert!(decode_json::<Ask>(b"{} x").is_err());
    assert!(decode_msgpack::<Ask>(b"\x80\x80").is_err());
    assert!(decode_msgpack::<Ask>(b"\xc1").is_err());
}

#[test]
fn text_is_no_map() {
    assert!(matches!(
        decode::<Ask>(Form::Text, b"HUP"),
        Err(DecodeError::Text)
    ));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Eighths, because JSON text does not keep every last bit of a float.
        any::<i32>().prop_map(|n| json!(f64::from(n) / 8.0)),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::btree_map(".{0,12}", inner, 0..20)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(value in any_value()) {
        for form in [Form::MessagePack, Form::Json] {
            let bytes = encode(form, &value).unwrap();
            prop_assert_eq!(&decode::<Value>(form, &bytes).unwrap(), &value);
        }
    }

    #[test]
    fn a_map_is_recognised_by_its_first_byte(name in ".{0,40}", tail: Option<u32>) {
        let ask = Ask { name, tail, labels: BTreeMap::new() };
        for form in [Form::MessagePack, Form::Json] {
            let bytes = encode(form, &ask).unwrap();
            prop_assert_eq!(Form::of(None, &bytes), form);
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_value_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        for form in [Form::MessagePack, Form::Json, Form::Text] {
            let _ = decode::<Value>(form, &bytes);
            let _ = decode::<Ask>(form, &bytes);
        }
    }

    #[test]
    fn a_message_cut_short_is_refused(value in any_value(), cut in 0.0..1.0_f64) {
        let bytes = encode_msgpack(&value).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss,
                 clippy::cast_precision_loss, reason = "a fraction of a short length")]
        let short = &bytes[..(bytes.len() as f64 * cut) as usize];
        prop_assert!(decode_msgpack::<Value>(short).is_err());
    }
}

/// Messages as nodes, managers and clients send them.
fn messages() -> Vec<(&'static str, Bytes)> {
    use loom_schemas::wire::{JobRequest, ScaleRequest, StatusReport};
    let slot = json!({"job": "web", "task": "main", "index": 0});
    let run = "0198c0de-0000-7000-8000-000000000001";
    let report = json!({
        "run": run, "placement": run, "slot": slot, "version": 1, "state": "running",
        "passed": ["starting"], "marks": {"paused": true}, "pid": 7, "filled": {"var.x": "1"},
        "exit": {"code": 0}, "result": "{}", "unenforced": ["x"], "ended_at": "2026-01-01T00:00:00Z",
    });
    let status = json!({"cluster": "c", "runs": [report, report]});
    let stop = json!({"address": {"job": "web", "task": "api", "index": 1}, "reason": "because"});
    let scale = json!({"job": "web", "replicas": 3});
    let status: StatusReport = serde_json::from_value(status).unwrap();
    let stop: JobRequest = serde_json::from_value(stop).unwrap();
    let scale: ScaleRequest = serde_json::from_value(scale).unwrap();
    vec![
        ("status", encode_msgpack(&status).unwrap()),
        ("stop", encode_msgpack(&stop).unwrap()),
        ("scale", encode_msgpack(&scale).unwrap()),
    ]
}

/// Reads what may be anything as each message; it may be refused.
fn read_all(form: Form, bytes: &[u8]) {
    use loom_schemas::wire::{Assign, Hello, JobRequest, ScaleRequest, StatusReport};
    let _ = decode::<StatusReport>(form, bytes);
    let _ = decode::<JobRequest>(form, bytes);
    let _ = decode::<ScaleRequest>(form, bytes);
    let _ = decode::<Hello>(form, bytes);
    let _ = decode::<Assign>(form, bytes);
}

#[test]
fn the_messages_that_are_changed_are_right() {
    use loom_schemas::wire::{JobRequest, ScaleRequest, StatusReport};
    let of = |name: &str| {
        messages()
            .into_iter()
            .find(|(of, _)| *of == name)
            .unwrap()
            .1
    };
    decode::<StatusReport>(Form::MessagePack, &of("status")).unwrap();
    decode::<JobRequest>(Form::MessagePack, &of("stop")).unwrap();
    decode::<ScaleRequest>(Form::MessagePack, &of("scale")).unwrap();
}

/// A few cases; with `LOOM_LONG=1` very many.
fn cases() -> ProptestConfig {
    let long = std::env::var_os("LOOM_LONG").is_some();
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if long { 5_000_000 } else { 1024 })
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_changed_message_is_an_error_or_a_message_never_a_panic(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0..4_u8), 1..12),
    ) {
        let mut bytes = messages()[which].1.to_vec();
        for (at, byte, what) in changes {
            let at = at % bytes.len().max(1);
            match what {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        for form in [Form::MessagePack, Form::Json, Form::Text] {
            read_all(form, &bytes);
        }
    }
}
