//! A source file as the rules see it: code without comments and strings, what ships without tests, words, functions.

use super::PURE;

/// One file of `src/`.
pub struct Source {
    /// Relative to `src/`, with `/`.
    pub path: String,
    /// As it stands on disk.
    pub text: String,
    /// With comments, strings and characters blanked; lines keep their numbers.
    pub code: String,
    /// `code` with items under `#[cfg(test)]` blanked too; all blank in a test file.
    pub shipped: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_non_code(text);
        let shipped = if is_test_file(path) { blank(&code, 0, code.len()) } else { blank_test_items(&code) };
        Self { path: path.into(), text: text.into(), code, shipped }
    }

    /// The top-level module that the file belongs to.
    pub fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub fn is_pure(&self) -> bool {
        PURE.contains(&self.room())
    }

    pub fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    pub fn at(&self, position: usize, what: &str) -> String {
        let line = self.text[..position].matches('\n').count() + 1;
        format!("src/{}:{line}: {what}", self.path)
    }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("_tests.rs") || path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

/// Positions of `word` where neither neighbour continues an identifier.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let continues = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let open_end = continues(word.chars().next_back());
    let whole = |position: &usize| {
        let before = code[..*position].chars().next_back();
        let after = code[position + word.len()..].chars().next();
        !(continues(before) || open_end && continues(after))
    };
    code.match_indices(word).map(|(position, _)| position).filter(whole).collect()
}

/// The first names of a path after `crate::`: one, or those of a `{...}` group.
pub fn path_heads(rest: &str) -> Vec<String> {
    let ident = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![ident(rest)];
    };
    let mut heads = vec![ident(group.trim_start())];
    let mut depth = 1;
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(ident(group[position + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Every function with a body: its name and how many lines it takes from `fn` to its closing brace.
pub fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for position in words(code, "fn") {
        let name: String =
            code[position + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // a function pointer's type
        }
        let end = item_end(code, position);
        if code[..end].ends_with('}') {
            found.push((name, code[position..end].matches('\n').count() + 1));
        }
    }
    found
}

/// Where the item that starts at `from` ends: behind its first `;` or its first `{...}`, not counting those inside `()` and `[]`.
fn item_end(code: &str, from: usize) -> usize {
    let (mut nested, mut braces) = (0i32, 0i32);
    for (offset, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            '{' if nested == 0 || braces > 0 => braces += 1,
            '}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return from + offset + 1;
                }
            }
            ';' if nested == 0 && braces == 0 => return from + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks every item under `#[cfg(test)]`.
fn blank_test_items(code: &str) -> String {
    let mut shipped = code.to_owned();
    for (position, attribute) in code.match_indices("#[cfg(test)]") {
        let mut item = position + attribute.len();
        loop {
            let rest = &code[item..];
            let gap = rest.len() - rest.trim_start().len();
            if !rest.trim_start().starts_with("#[") {
                break;
            }
            item += gap + rest.trim_start().find(']').map_or(rest.trim_start().len(), |end| end + 1);
        }
        shipped = blank(&shipped, position, item_end(code, item));
    }
    shipped
}

/// `text` with spaces for everything but line ends between two positions.
fn blank(text: &str, from: usize, to: usize) -> String {
    let spaces = text[from..to].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..from]);
    out.extend(spaces);
    out.push_str(&text[to..]);
    out
}

/// Blanks comments, strings and characters; positions and lines stay what they were.
fn blank_non_code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let skip = comment(rest).or_else(|| string(rest, out.chars().next_back())).or_else(|| character(rest));
        if let Some(length) = skip {
            out.push_str(&blank(rest, 0, length)[..length]);
            at += length;
        } else {
            let c = rest.chars().next().expect("not at the end");
            // Outside of strings and comments code is ASCII; whatever is not becomes blanks of the same length.
            (0..c.len_utf8()).for_each(|_| out.push(if c.is_ascii() { c } else { ' ' }));
            at += c.len_utf8();
        }
    }
    assert_eq!(out.len(), text.len());
    out
}

/// The length of the comment that `rest` starts with. Block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < rest.len() {
        match &rest.as_bytes()[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    Some(at)
}

/// The length of the string literal that `rest` starts with, raw ones included.
fn string(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = ["r", "br", "cr"].iter().find(|prefix| !in_word && rest.starts_with(**prefix));
    if let Some(prefix) = raw {
        let hashes = rest[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
        let open = prefix.len() + hashes;
        if rest[open..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(rest[open + 1..].find(&close).map_or(rest.len(), |end| open + 1 + end + close.len()));
        }
    }
    if !rest.starts_with('"') {
        return None;
    }
    let mut escaped = false;
    for (position, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(position + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The length of the character literal that `rest` starts with; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        return Some(2 + inside.char_indices().skip(2).find(|(_, c)| *c == '\'')?.0);
    }
    inside[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lifetimes_are_not() {
    let text = "a /* b /* c */ d */ e \"f\\\"g\" r#\"h\"i\"# 'j' '\\'' '\\u{1}' &'k str // l\nm é";
    let code = blank_non_code(text);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "e", "&'k", "str", "m"]);
    assert_eq!(code.find('\n'), text.find('\n'));
}
