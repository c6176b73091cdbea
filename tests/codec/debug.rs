//! Reads what `derive(Debug)` prints, so that two codecs' structs can be compared field by field by their names.

use std::collections::BTreeMap;

/// Fields that came with versions which the other codec does not know.
const NEWER_FIELDS: &[&str] = &["is_cordoned"];

/// A printed value. Wrappers of one value (`Some(x)`, newtypes) are that value.
#[derive(Debug, PartialEq)]
pub enum Value {
    /// A struct's fields.
    Struct(BTreeMap<String, Value>),
    /// A list's elements.
    List(Vec<Value>),
    /// Anything else, as printed.
    Atom(String),
}

impl Value {
    /// Asserts that `other` has every field of this value with the same content; it may have more fields.
    pub fn assert_said_by(&self, other: &Self, what: &str) {
        match (self, other) {
            (Self::Struct(ours), Self::Struct(theirs)) => {
                for (name, value) in ours.iter().filter(|(name, _)| !NEWER_FIELDS.contains(&name.as_str())) {
                    let said = theirs.get(name).unwrap_or_else(|| panic!("{what}: they have no field {name}"));
                    value.assert_said_by(said, &format!("{what}, {name}"));
                }
            }
            (Self::List(ours), Self::List(theirs)) if ours.len() == theirs.len() => {
                ours.iter().zip(theirs).for_each(|(value, said)| value.assert_said_by(said, what));
            }
            // A field that the version lacks is null for us where Kafka's default is empty.
            (Self::Atom(ours), Self::Atom(theirs)) if ours == "None" && theirs == "\"\"" => {}
            (Self::Atom(ours), Self::List(theirs)) if ours == "None" && theirs.is_empty() => {}
            // Records are compared as bytes.
            (Self::Atom(ours), Self::Atom(_)) if ours.ends_with(" bytes of records") => {}
            // An id without a type of its own.
            (Self::List(ours), Self::Atom(theirs)) if ours.len() == 16 => {
                let hex = ours.iter().map(|byte| match byte {
                    Self::Atom(byte) => format!("{:02x}", byte.parse::<u8>().expect("a byte")),
                    _ => panic!("{what}: not bytes"),
                });
                assert_eq!(hex.collect::<String>(), theirs.replace('-', ""), "{what}");
            }
            _ => assert_eq!(self, other, "{what}"),
        }
    }
}

/// Reads a printed value.
pub fn parse(text: &str) -> Value {
    let mut rest = text;
    let value = value(&mut rest);
    assert!(rest.is_empty(), "left over: {rest}");
    value
}

fn eat(rest: &mut &str, token: &str) -> bool {
    rest.strip_prefix(token).map(|after| *rest = after).is_some()
}

fn value(rest: &mut &str) -> Value {
    if eat(rest, "[") {
        let mut list = Vec::new();
        while !eat(rest, "]") {
            list.push(value(rest));
            eat(rest, ", ");
        }
        return Value::List(list);
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(word);
    if let Some(after) = after.strip_prefix(" { ") {
        *rest = after;
        return fields(rest);
    }
    if let Some(after) = after.strip_prefix('(').filter(|_| !name.is_empty()) {
        *rest = after;
        let inner = value(rest);
        assert!(eat(rest, ")"), "one value in {name}");
        return inner;
    }
    atom(rest)
}

fn fields(rest: &mut &str) -> Value {
    let mut fields = BTreeMap::new();
    while !eat(rest, " }") {
        let (name, after) = rest.split_once(": ").expect("a field has a name");
        *rest = after;
        fields.insert(name.to_owned(), value(rest));
        eat(rest, ", ");
    }
    Value::Struct(fields)
}

/// Up to a comma or closing bracket outside quotes and parentheses.
fn atom(rest: &mut &str) -> Value {
    let (mut quoted, mut escaped, mut depth) = (false, false, 0);
    let end = rest.find(|c: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '{' => depth += 1,
            ')' | '}' | ']' if depth == 0 => return true,
            ')' | '}' => depth -= 1,
            ',' if depth == 0 => return true,
            _ => {}
        }
        false
    });
    let (atom, after) = rest.split_at(end.unwrap_or(rest.len()));
    // The space before a struct's closing brace belongs to the brace.
    let trimmed = atom.trim_end();
    *rest = if after.starts_with('}') { &rest[trimmed.len()..] } else { after };
    let number =
        trimmed.strip_suffix(')').and_then(|atom| atom.rsplit_once(" (")).filter(|_| !trimmed.starts_with('"'));
    Value::Atom(number.map_or(trimmed, |(_, number)| number).to_owned())
}
