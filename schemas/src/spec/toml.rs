//! TOML into the tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, shown};
use super::tree::{Budget, Lines, MapBuilder, Node, Value};

/// Reads a document; all errors of the syntax at once.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problems = errors.iter().map(|error| problem(error, text, &lines));
        return Err(problems.collect());
    }
    let mut reader = Reader {
        lines,
        budget: Budget::default(),
    };
    let span = table.span();
    reader
        .table(table.get_ref(), span.start, 1)
        .map_err(|problem| vec![problem])
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

    fn take(&mut self, at: usize, depth: usize) -> Result<super::tree::Place, Problem> {
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
    } else {
        Problem::new(format!("not TOML: {message}"), "")
    };
    problem.at(place.line, place.column)
}
