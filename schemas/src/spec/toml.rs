//! TOML into the tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::problem::{Problem, shown};
use super::tree::{Budget, DEPTH_MAX, Lines, MapBuilder, Node, Place, Value, too_deep};

/// The largest text in which all errors of the syntax are looked for, in bytes; in a larger one,
/// which is hardly written by hand, there could be a million.
const ALL_ERRORS_MAX: usize = 64 * 1024;

/// Reads a document; all errors of the syntax at once.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines::new(text);
    if let Some(offset) = too_deep_at(text) {
        let place = lines.place(offset);
        return Err(vec![too_deep().at(place.line, place.column)]);
    }
    let table = DeTable::parse(text).map_err(|first| {
        let errors = if text.len() <= ALL_ERRORS_MAX {
            DeTable::parse_recoverable(text).1
        } else {
            vec![first]
        };
        let problems = errors.iter().map(|error| problem(error, text, &lines));
        problems.collect::<Vec<_>>()
    })?;
    let mut reader = Reader {
        lines,
        budget: Budget::default(),
    };
    let span = table.span();
    reader
        .table(table.get_ref(), span.start, 1)
        .map_err(|problem| vec![problem])
}

/// Where the brackets and dotted keys of a text may nest too deep.
///
/// The crate limits lists, tables and keys each to 80 levels, but they multiply: tables of dotted
/// keys in tables reach 6000, and such a tree ends the stack when it is dropped.
fn too_deep_at(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut depth = 0;
    let mut dots = 0;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Comma | TokenKind::Newline => dots = 0,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                open.push(dots + 1);
                depth += dots + 1;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth -= open.pop().unwrap_or(0);
                dots = 0;
            }
            _ => {}
        }
        if depth + dots > DEPTH_MAX {
            return Some(token.span().start());
        }
    }
    None
}

struct Reader<'a> {
    lines: Lines<'a>,
    budget: Budget,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, at: usize, depth: usize) -> Result<Node, Problem> {
        let place = self.take(at, depth)?;
        let mut map = MapBuilder::default();
        for (key, value) in table {
            let key_place = self.lines.place(key.span().start);
            let node = self.node(value, depth)?;
            map.push(key.get_ref().to_string(), key_place, node)?;
        }
        Ok(Node {
            place,
            value: map.finish(),
        })
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Problem> {
        let at = value.span().start;
        let value = match value.get_ref() {
            DeValue::Table(table) => return self.table(table, at, depth + 1),
            DeValue::Array(array) => {
                let place = self.take(at, depth + 1)?;
                let nodes = array.iter().map(|item| self.node(item, depth + 1));
                let value = Value::List(nodes.collect::<Result<_, _>>()?);
                return Ok(Node { place, value });
            }
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => {
                let text = integer.to_string();
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(value) => Value::Integer(value, text),
                    Err(_) => Value::Float(f64::INFINITY, text),
                }
            }
            DeValue::Float(float) => {
                let text = float.as_str().to_owned();
                Value::Float(text.parse().unwrap_or(f64::NAN), text)
            }
            DeValue::Boolean(value) => Value::Bool(*value, value.to_string()),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
        };
        let place = self.take(at, depth)?;
        Ok(Node { place, value })
    }

    fn take(&mut self, at: usize, depth: usize) -> Result<Place, Problem> {
        let place = self.lines.place(at);
        let taken = self.budget.take(depth);
        taken.map_err(|problem| problem.at(place.line, place.column))?;
        Ok(place)
    }
}

fn problem(error: &toml::de::Error, text: &str, lines: &Lines<'_>) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let place = lines.place(span.start);
    let message = error.message().trim().replace('\n', ", ");
    let problem = if message == "duplicate key" {
        let key = shown(text.get(span).unwrap_or_default());
        Problem::new(format!("`{key}` is there twice"), "remove one of the two")
    } else if message.contains("recursion") || message.contains("recurse") {
        too_deep()
    } else {
        Problem::new(format!("not TOML: {message}"), "")
    };
    problem.at(place.line, place.column)
}
