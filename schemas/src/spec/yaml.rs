//! YAML into the tree: version 1.2, core schema, one document, no anchors, no tags.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::problem::Problem;
use super::tree::{Budget, MapBuilder, Node, Place, Value, too_deep};

/// Reads a document. Iterative: nesting costs no stack.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| problem(&error))?;
        builder.event(event, span)?;
    }
    builder
        .root
        .ok_or_else(|| Problem::new("the file is empty", "write at least `name` and a task"))
}

fn problem(error: &ScanError) -> Problem {
    let place = place(*error.marker());
    let problem = match error.info() {
        "recursion limit exceeded" => too_deep(),
        info if info.contains("tabs") => {
            Problem::new(format!("not YAML: {info}"), "indent with spaces")
        }
        info => Problem::new(format!("not YAML: {info}"), ""),
    };
    problem.at(place.line, place.column)
}

/// A list or map that is not closed yet.
enum Open {
    List(Vec<Node>),
    Map(MapBuilder, Option<(String, Place)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, Place)>,
    root: Option<Node>,
    documents: usize,
    budget: Budget,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = place(span.start);
        let refuse = |message: &str, help: &str| {
            Err(Problem::new(message, help).at(place.line, place.column))
        };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return refuse("a second document begins here", "write one job a file");
                }
                Ok(())
            }
            Event::Alias(_) => refuse("aliases are not supported", "write the value out"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                refuse("anchors are not supported", "write the value out")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse("tags are not supported", "remove the tag"),
            Event::Scalar(text, style, ..) => self.scalar(text, style, place),
            Event::SequenceStart(..) => self.begin(Open::List(Vec::new()), place),
            Event::MappingStart(..) => self.begin(Open::Map(MapBuilder::default(), None), place),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        place: Place,
    ) -> Result<(), Problem> {
        if let Some((Open::Map(_, key @ None), _)) = self.open.last_mut() {
            *key = Some((text.into_owned(), place));
            return Ok(());
        }
        self.take(self.open.len(), place)?;
        let value = match style {
            ScalarStyle::Plain => plain(&text),
            _ => Value::Text(text.into_owned()),
        };
        self.value(Node { place, value })
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Problem> {
        if let Some((Open::Map(_, None), _)) = self.open.last() {
            return Err(
                Problem::new("a key is a list or a map", "write a plain text as the key")
                    .at(place.line, place.column),
            );
        }
        self.take(self.open.len() + 1, place)?;
        self.open.push((open, place));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some((open, place)) = self.open.pop() else {
            return Ok(());
        };
        let value = match open {
            Open::List(nodes) => Value::List(nodes),
            Open::Map(entries, _) => entries.finish(),
        };
        self.value(Node { place, value })
    }

    fn value(&mut self, node: Node) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(nodes), _)) => nodes.push(node),
            Some((Open::Map(entries, key), _)) => {
                if let Some((key, place)) = key.take() {
                    entries.push(key, place, node)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, depth: usize, place: Place) -> Result<(), Problem> {
        let taken = self.budget.take(depth);
        taken.map_err(|problem| problem.at(place.line, place.column))
    }
}

fn place(marker: Marker) -> Place {
    Place {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
    }
}

/// What a plain scalar is by the core schema: <https://yaml.org/spec/1.2.2/#103-core-schema>.
fn plain(text: &str) -> Value {
    let own = || text.to_owned();
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true, own()),
        "false" | "False" | "FALSE" => return Value::Bool(false, own()),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN, own()),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
        return Value::Float(sign * f64::INFINITY, own());
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        let digits = text
            .strip_prefix(prefix)
            .filter(|d| !d.starts_with(['+', '-']));
        if let Some(Ok(value)) = digits.map(|digits| i64::from_str_radix(digits, radix)) {
            return Value::Integer(value, own());
        }
    }
    if !is_number(unsigned) {
        return Value::Text(own());
    }
    if let Ok(value) = text.parse() {
        return Value::Integer(value, own());
    }
    match text.parse() {
        Ok(value) => Value::Float(value, own()),
        Err(_) => Value::Text(own()),
    }
}

/// Whether a text without its sign has the form of a decimal integer or float.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa = (digits(whole) && (fraction.is_empty() || digits(fraction)))
        || (whole.is_empty() && digits(fraction));
    let exponent = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    mantissa && exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_of_the_core_schema() {
        for text in ["", "~", "null"] {
            assert!(matches!(plain(text), Value::Null), "{text}");
        }
        for text in [
            "yes", "no", "on", "off", "y", "nulls", ".", "1.2.3", "0x", "0xg", "e5", "-",
        ] {
            assert!(matches!(plain(text), Value::Text(_)), "{text}");
        }
        for (text, value) in [("0", 0), ("-12", -12), ("+3", 3), ("022", 22), ("0o17", 15)] {
            assert!(matches!(plain(text), Value::Integer(v, t) if v == value && t == text));
        }
        for (text, value) in [("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("-1e3", -1000.0)] {
            assert!(matches!(plain(text), Value::Float(v, _) if (v - value).abs() < 1e-9));
        }
        assert!(matches!(plain("True"), Value::Bool(true, _)));
        assert!(matches!(plain("-.inf"), Value::Float(v, _) if v < 0.0));
        assert!(matches!(plain("99999999999999999999"), Value::Float(..)));
    }
}
