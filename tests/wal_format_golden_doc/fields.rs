//! The document's language of fields: `name: type, name: type`; a type is a word of [`WIDTHS`], `str`, `bytes`,
//! `option TYPE`, `list {fields}` or `{fields}`.

use std::ops::Range;

const WIDTHS: [(&str, usize); 9] =
    [("u8", 1), ("bool", 1), ("u16", 2), ("u32", 4), ("i32", 4), ("u64", 8), ("i64", 8), ("uuid", 16), ("u128", 16)];

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    Fixed(String, usize),
    Text,
    Bytes,
    Option(Box<Type>),
    List(Vec<(String, Type)>),
    Struct(Vec<(String, Type)>),
}

/// A piece of a payload that has a name.
#[derive(Debug)]
pub struct Leaf {
    pub name: String,
    pub value: String,
    pub range: Range<usize>,
}

/// Reads `name: type, …`; a cell that says `none` has no fields.
pub fn parse(text: &str) -> Vec<(String, Type)> {
    if text == "none" {
        return Vec::new();
    }
    let mut rest = text;
    let fields = parse_fields(&mut rest);
    assert!(rest.is_empty(), "not read: {rest}");
    fields
}

fn parse_fields(rest: &mut &str) -> Vec<(String, Type)> {
    let mut fields = Vec::new();
    loop {
        let (name, after) = rest.split_once(':').unwrap_or_else(|| panic!("no field: {rest}"));
        *rest = after.trim_start();
        fields.push((name.trim().to_owned(), parse_type(rest)));
        match rest.strip_prefix(',') {
            Some(after) => *rest = after.trim_start(),
            None => return fields,
        }
    }
}

fn parse_type(rest: &mut &str) -> Type {
    if let Some(after) = rest.strip_prefix('{') {
        *rest = after;
        let fields = parse_fields(rest);
        *rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("no brace: {rest}"));
        return Type::Struct(fields);
    }
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    match word {
        "str" => Type::Text,
        "bytes" => Type::Bytes,
        "option" | "list" => {
            *rest = rest.trim_start();
            match (word, parse_type(rest)) {
                ("list", Type::Struct(fields)) => Type::List(fields),
                ("option", inner) => Type::Option(Box::new(inner)),
                _ => panic!("a list without fields: {rest}"),
            }
        }
        _ => {
            let width = WIDTHS.iter().find(|(name, _)| *name == word);
            Type::Fixed(word.to_owned(), width.unwrap_or_else(|| panic!("unknown type {word}")).1)
        }
    }
}

/// Walks all bytes by the fields; every byte must belong to one.
pub fn walk(fields: &[(String, Type)], bytes: &[u8]) -> Vec<Leaf> {
    let mut walk = Walk { bytes, at: 0, leaves: Vec::new() };
    walk.fields("", fields);
    assert_eq!(walk.at, bytes.len(), "bytes behind the last field");
    walk.leaves
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    fn fields(&mut self, before: &str, fields: &[(String, Type)]) {
        for (name, kind) in fields {
            let name = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
            self.value(&name, kind);
        }
    }

    fn value(&mut self, name: &str, kind: &Type) {
        match kind {
            Type::Fixed(word, width) => {
                let bytes = &self.bytes[self.at..self.at + width];
                let value = number(word, bytes);
                self.leaf(name, value, *width);
            }
            Type::Text | Type::Bytes => {
                let len = self.count(&format!("{name} length"));
                let bytes = &self.bytes[self.at..self.at + len];
                let value = match kind {
                    Type::Text => format!("{:?}", std::str::from_utf8(bytes).unwrap()),
                    _ => hex(bytes),
                };
                if len > 0 {
                    self.leaf(name, value, len);
                }
            }
            Type::Option(inner) => {
                let there = self.bytes[self.at];
                assert!(there < 2, "{name}: an option begins with {there}");
                self.leaf(&format!("{name} is there"), there.to_string(), 1);
                if there == 1 {
                    self.value(name, inner);
                }
            }
            Type::List(fields) => {
                for i in 0..self.count(&format!("{name} count")) {
                    self.fields(&format!("{name}[{i}]"), fields);
                }
            }
            Type::Struct(fields) => self.fields(name, fields),
        }
    }

    fn count(&mut self, name: &str) -> usize {
        let bytes = &self.bytes[self.at..self.at + 8];
        let count = u64::from_le_bytes(bytes.try_into().unwrap());
        self.leaf(name, count.to_string(), 8);
        count as usize
    }

    fn leaf(&mut self, name: &str, value: String, width: usize) {
        let range = self.at..self.at + width;
        self.at += width;
        self.leaves.push(Leaf { name: name.to_owned(), value, range });
    }
}

/// A little-endian number of up to 16 bytes, for people.
pub fn number(word: &str, bytes: &[u8]) -> String {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    match word {
        "i32" => (u128::from_le_bytes(wide) as u32 as i32).to_string(),
        "i64" => (u128::from_le_bytes(wide) as u64 as i64).to_string(),
        "uuid" => hex(bytes),
        "u128" => format!("{:032x}", u128::from_le_bytes(wide)),
        _ => u128::from_le_bytes(wide).to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
